package dev

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/cmd/tenure/internal/project"
)

// TestQuote asks a shell what it makes of the words.
func TestQuote(t *testing.T) {
	words := []string{"get", "accounts/alice", "", "a b", `{"from":"alice"}`, "it's", "$HOME", "`id`", "*", "~", "a\nb", "--server", "http://[::1]:80", `back\slash`, "#"}
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = quote(word)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '<%s>' `+strings.Join(quoted, " ")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "<" + strings.Join(words, "><") + ">"; string(out) != want {
		t.Errorf("the shell reads %q, want %q", out, want)
	}
}

// TestExamples checks that each example is a project whose functions are all
// compiled in.
func TestExamples(t *testing.T) {
	for name, e := range examples() {
		p, err := project.Read(filepath.Join("../../../../examples", name))
		if err != nil {
			t.Error(err)
			continue
		}
		bundles, err := e.native(p)
		if err != nil || len(bundles) != len(p.Functions) {
			t.Errorf("example %s: %d bundles for %d functions, %v", name, len(bundles), len(p.Functions), err)
		}
		p.Functions = append(p.Functions, project.Function{Name: "other"})
		if _, err := e.native(p); err == nil {
			t.Errorf("example %s: a function that is not compiled in is accepted", name)
		}
	}
}
