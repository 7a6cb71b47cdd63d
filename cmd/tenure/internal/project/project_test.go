package project

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/workflow"
)

const bank = `# The bank.
functions:
  bank:
    source: function
    isolate: true
  audit: {module: build/audit.wasm}
workflows:
  transfer:
    functions:
      withdraw:                    # the first step
        function: bank
        writes: ["accounts/{from}"]
      deposit:
        function: bank
        writes:
          - 'accounts/{to}'
        after: [withdraw]
    output: deposit
    timeout: 5s
  check: {functions: {zulu: {function: audit, reads: ["a/{b}"]}, alpha: {function: audit, after: [zulu]}}}
`

func TestParse(t *testing.T) {
	p, err := parse([]byte(bank))
	if err != nil {
		t.Fatal(err)
	}
	functions := []Function{{Name: "audit", Module: "build/audit.wasm"}, {Name: "bank", Source: "function", Isolate: true}}
	if len(p.Functions) != 2 || p.Functions[0] != functions[0] || p.Functions[1] != functions[1] {
		t.Errorf("functions %+v, want %+v", p.Functions, functions)
	}
	workflows := []struct{ name, definition string }{
		{"check", `{"functions":{"zulu":{"function":"audit","reads":["a/{b}"]},"alpha":{"function":"audit","after":["zulu"]}}}`},
		{"transfer", `{"functions":{"withdraw":{"function":"bank","writes":["accounts/{from}"]},` +
			`"deposit":{"function":"bank","writes":["accounts/{to}"],"after":["withdraw"]}},"output":"deposit","timeout":"5s"}`},
	}
	if len(p.Workflows) != len(workflows) {
		t.Fatalf("%d workflows, want %d", len(p.Workflows), len(workflows))
	}
	for i, want := range workflows {
		definition, err := workflow.Parse([]byte(want.definition), workflow.JSON)
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := definition.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Workflows[i]; got.Name != want.name || string(got.Definition) != string(canonical) {
			t.Errorf("workflow %s is\n%s, want %s\n%s", got.Name, got.Definition, want.name, canonical)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "EOF"},
		{"nothing named", "functions: {}", "no function and no workflow"},
		{"unknown field", "functions:\n  bank:\n    source: .\n    isolated: true", `line 4, column 5: unknown field "isolated"`},
		{"unknown top field", "function: {}", `unknown field "function"`},
		{"duplicate function", "functions:\n  a: {source: b}\n  a: {source: c}", "line 3, column 3"},
		{"bad function name", "functions: {../bank: {source: .}}", "invalid-name"},
		{"bad workflow name", "workflows: {a b: {functions: {a: {function: bank}}}}", "invalid-name"},
		{"source and module", "functions: {bank: {source: ., module: b.wasm}}", "functions.bank: give either"},
		{"neither", "functions: {bank: {isolate: true}}", "functions.bank: give either"},
		{"wrong type", "functions: {bank: {source: [a]}}", "line 1"},
		{"syntax", "functions: [", "line 1"},
		{"workflow field", "workflows: {pay: {functions: {a: {function: bank, wrties: [a/b]}}}}", "workflows.pay: invalid-workflow: functions.a"},
		{"workflow is text", "workflows: {pay: hello}", "workflows.pay: invalid-workflow"},
		{"workflow is empty", "workflows: {pay: }", "workflows.pay: invalid-workflow"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := parse([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, error %v; want one with %q", p, err, test.want)
			}
		})
	}
}

func FuzzProject(f *testing.F) {
	f.Add([]byte(bank))
	f.Add([]byte("functions: {a: {source: .}}\n---\nfunctions: {}"))
	f.Add([]byte("workflows:\n  w: &a {functions: {s: {function: f}}}\n  v: *a\n"))
	f.Add([]byte("workflows:\n  w:\n    functions: {s: {function: f, writes: [|-\n a/{b}]}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<10 {
			return // the parser's time grows with the square of the length
		}
		p, err := parse(text)
		if err != nil {
			return
		}
		for _, function := range p.Functions {
			if base.ValidateName("function", function.Name) != nil || (function.Source == "") == (function.Module == "") {
				t.Errorf("accepted the function %+v", function)
			}
		}
		for _, w := range p.Workflows {
			if base.ValidateName("workflow", w.Name) != nil {
				t.Errorf("accepted the workflow name %q", w.Name)
			}
			again, err := workflow.Parse(w.Definition, workflow.JSON)
			if err != nil {
				t.Fatalf("what would be sent for %s is refused: %v\n%s", w.Name, err, w.Definition)
			}
			if text, err := again.MarshalJSON(); err != nil || !bytes.Equal(text, w.Definition) {
				t.Errorf("%s is not canonical: %s, then %s (%v)", w.Name, w.Definition, text, err)
			}
		}
	})
}

// write makes a file in dir with the directories above it.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		dir   string // below the directory of the files
		want  string // part of the error; empty: success
		check func(root string, p *Project) bool
	}{
		{
			name: "paths are relative to the project", dir: "shop",
			files: map[string]string{"shop/tenure.yaml": "functions: {a: {source: ../lib}, b: {module: b.wasm}, c: {module: /c.wasm}}"},
			check: func(root string, p *Project) bool {
				return p.Functions[0].Source == filepath.Join(root, "lib") && p.Functions[1].Module == filepath.Join(root, "shop/b.wasm") && p.Functions[2].Module == "/c.wasm"
			},
		}, {
			name: "main package without a file", dir: "[shop]",
			files: map[string]string{"[shop]/main.go": "package main\n\nfunc main() {}\n", "[shop]/x_test.go": "package shop\n"},
			want:  "invalid-name",
		}, {
			name: "main package under its name", dir: "shop",
			files: map[string]string{"shop/a.go": "package main\n\nfunc main() {}\n"},
			check: func(root string, p *Project) bool {
				return len(p.Functions) == 1 && p.Functions[0] == Function{Name: "shop", Source: filepath.Join(root, "shop")}
			},
		},
		{name: "library", dir: "shop", files: map[string]string{"shop/a.go": "package shop\n"}, want: "neither a tenure.yaml nor a Go main package"},
		{name: "absent", dir: "shop", files: map[string]string{"a": ""}, want: "no such file"},
		{name: "file", dir: "a", files: map[string]string{"a": ""}, want: "not a directory"},
		{name: "fault", dir: ".", files: map[string]string{"tenure.yaml": "functions: 1"}, want: "tenure.yaml: line 1"},
		{name: "large", dir: ".", files: map[string]string{"tenure.yaml": strings.Repeat("#\n", maxFileBytes)}, want: "the limit is"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range test.files {
				write(t, root, name, text)
			}
			p, err := Read(filepath.Join(root, test.dir))
			switch {
			case test.want != "":
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%+v, error %v; want one with %q", p, err, test.want)
				}
			case err != nil || !test.check(root, p):
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "b.wasm", "module")
	write(t, dir, "bad/go.mod", "module bad\n\ngo 1.26\n")
	write(t, dir, "bad/main.go", "package main\n\nfunc main() { undefinedThing() }\n")
	write(t, dir, "good/go.mod", "module good\n\ngo 1.26\n")
	write(t, dir, "good/main.go", "package main\n\nfunc main() {}\n")
	for _, test := range []struct {
		name     string
		function Function
		path     string // PATH; empty: as it is
		want     string // part of the error, or the module's beginning
		fails    bool
	}{
		{"file", Function{Name: "b", Module: filepath.Join(dir, "b.wasm")}, "", "module", false},
		{"absent file", Function{Name: "b", Module: filepath.Join(dir, "c.wasm")}, "", "function b: open", true},
		{"build", Function{Name: "g", Source: filepath.Join(dir, "good")}, "", "\x00asm", false},
		{"build fails", Function{Name: "f", Source: filepath.Join(dir, "bad")}, "", "undefined: undefinedThing", true},
		{"no compiler", Function{Name: "g", Source: filepath.Join(dir, "good")}, dir, "go is not in the PATH", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.path != "" {
				t.Setenv("PATH", test.path)
			}
			module, err := test.function.Bytes(t.Context())
			if test.fails {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want one with %q", err, test.want)
				}
				return
			}
			if err != nil || !bytes.HasPrefix(module, []byte(test.want)) {
				t.Errorf("module %.20q, %v", module, err)
			}
		})
	}
}

func TestBytesInterrupted(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "go.mod", "module m\n")
	write(t, dir, "main.go", "package main\n\nfunc main() {}\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := Function{Name: "m", Source: dir}
	if _, err := f.Bytes(ctx); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("error %v", err)
	}
}
