package lint

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// file is one Go file of the tree.
type file struct {
	// path is relative to the root, with slashes.
	path  string
	lines int
	ast   *ast.File
}

func (f *file) dir() string  { return path.Dir(f.path) }
func (f *file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// tree is the Go files of a source tree, sorted by path.
type tree struct {
	positions *token.FileSet
	files     []*file
}

// sources yields the files that are not tests.
func (t *tree) sources(yield func(*file) bool) {
	for _, f := range t.files {
		if !f.isTest() && !yield(f) {
			return
		}
	}
}

// at makes a finding at a place in f.
func (t *tree) at(f *file, pos token.Pos, format string, args ...any) finding {
	return finding{f.path, t.positions.Position(pos).Line, fmt.Sprintf(format, args...)}
}

// finding is one place where a rule is broken.
type finding struct {
	path string
	line int
	text string
}

// String returns the finding as compilers write theirs.
func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.text) }

// load parses every Go file below root but for testdata and hidden directories.
func load(root fs.FS) (*tree, error) {
	t := &tree{positions: token.NewFileSet()}
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && (d.Name() == "testdata" || d.Name()[0] == '.' || d.Name()[0] == '_'):
			return fs.SkipDir
		case d.IsDir() || path.Ext(p) != ".go":
			return nil
		}
		src, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(t.positions, p, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if ast.IsGenerated(parsed) {
			return nil // its generator has a style of its own
		}
		t.files = append(t.files, &file{path: p, lines: strings.Count(string(src), "\n"), ast: parsed})
		return nil
	})
	return t, err
}

// rule is one rule; its name is that of its sample in testdata.
type rule struct {
	name  string
	check func(*tree) []finding
}

// rules are all rules but the limit on functions, which has a file of
// exceptions, and the one on files, whose sample would be long.
var rules = []rule{
	{"arrows", arrows},
	{"purity", purity},
	{"goroutines", goroutines},
	{"walls", walls},
	{"comments", packageComments},
	{"options", optionsComments},
	{"todo", todos},
	{"init", initFunctions},
	{"variables", mutatedVariables},
}

func loadRepository(t *testing.T) *tree {
	t.Helper()
	root := os.DirFS("../..")
	if _, err := fs.Stat(root, "go.mod"); err != nil {
		t.Fatalf("the root of the repository is not where it should be: %v", err)
	}
	all, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(all.files) < 50 {
		t.Fatalf("%d files found: the test sees too little", len(all.files))
	}
	return all
}

// TestTree holds the repository to every rule.
func TestTree(t *testing.T) {
	all := loadRepository(t)
	for _, r := range append(rules, rule{"files", fileSizes}) {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.check(all) {
				t.Error(f)
			}
		})
	}
}

// TestRulesBite runs each rule on its sample: a small tree in which every line
// with the mark "want" breaks the rule, and no other line does.
func TestRulesBite(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			sample, err := load(os.DirFS(path.Join("testdata", r.name)))
			if err != nil {
				t.Fatal(err)
			}
			want := marks(sample)
			if len(want) == 0 {
				t.Fatal("the sample has no mark")
			}
			got := map[string]string{}
			for _, f := range r.check(sample) {
				got[fmt.Sprintf("%s:%d", f.path, f.line)] = f.text
			}
			for place, part := range want {
				if text, ok := got[place]; !ok || !strings.Contains(text, part) {
					t.Errorf("%s: the rule says %q, want something with %q", place, text, part)
				}
			}
			for place, text := range got {
				if _, ok := want[place]; !ok {
					t.Errorf("%s: the rule says %q, and the line is good", place, text)
				}
			}
		})
	}
}

// marks returns the places with a comment "want TEXT", or "want above TEXT" for
// the line before the comment.
func marks(t *tree) map[string]string {
	want := map[string]string{}
	for _, f := range t.files {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				_, part, ok := strings.Cut(c.Text, "want ")
				if !ok {
					continue
				}
				line := t.positions.Position(c.Pos()).Line
				if above, ok := strings.CutPrefix(part, "above "); ok {
					line, part = line-1, above
				}
				want[fmt.Sprintf("%s:%d", f.path, line)] = strings.TrimSuffix(part, " */")
			}
		}
	}
	return want
}

// TestFileSizesBite shows the limit on files at its edge.
func TestFileSizesBite(t *testing.T) {
	lines := func(n int) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("package p\n" + strings.Repeat("\n", n-1))}
	}
	sample, err := load(fstest.MapFS{
		"p/long.go": lines(maxFileLines + 1), "p/full.go": lines(maxFileLines), "p/long_test.go": lines(2 * maxFileLines),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := fileSizes(sample); len(got) != 1 || got[0].path != "p/long.go" {
		t.Errorf("found %v, want p/long.go alone", got)
	}
}

// TestFunctionSizes holds functions to their limit, or to the length that
// testdata/long_functions.txt allows them. A function that has become shorter
// must be made shorter there too.
func TestFunctionSizes(t *testing.T) {
	raw, err := os.ReadFile("testdata/long_functions.txt")
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := parseAllowed(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range functionSizes(loadRepository(t), allowed) {
		t.Error(f)
	}
}

// TestFunctionSizesBite shows the limit at its edge, and the ratchet.
func TestFunctionSizesBite(t *testing.T) {
	function := func(name string, lines int) string {
		return "func " + name + "() {\n" + strings.Repeat("\t_ = 0\n", lines-2) + "}\n\n"
	}
	sample, err := load(fstest.MapFS{
		"p/p.go": {Data: []byte("package p\n\n" + function("full", maxFunctionLines) + function("long", maxFunctionLines+1) +
			function("listed", 90) + function("grown", 91) + function("shrunk", 89) + "type t struct{}\n\n" +
			strings.Replace(function("method", 80), "func ", "func (*t) ", 1))},
		"p/p_test.go": {Data: []byte("package p\n\n" + function("test", 300))},
	})
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := parseAllowed("# a comment\np/p.go listed 90\np/p.go grown 90\np/p.go shrunk 90\np/p.go full 80\np/p.go gone 80\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range functionSizes(sample, allowed) {
		name, _, _ := strings.Cut(f.text, " ")
		got = append(got, name)
	}
	slices.Sort(got)
	if want := []string{"full", "gone", "grown", "long", "shrunk", "t.method"}; !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	for _, bad := range []string{"p/p.go listed", "p/p.go listed many", "p/p.go listed 80\np/p.go listed 81"} {
		if _, err := parseAllowed(bad); err == nil {
			t.Errorf("the list %q is accepted", bad)
		}
	}
}

func sortFindings(found []finding) []finding {
	slices.SortFunc(found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.line, b.line), cmp.Compare(a.text, b.text))
	})
	return found
}
