package workflow

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
)

// deployed is a Resolver: the functions and their handlers.
type deployed map[string][]string

func (d deployed) Handlers(function string) ([]string, bool) {
	handlers, ok := d[function]
	return handlers, ok
}

var bank = deployed{"bank": {"deposit", "withdraw", "a", "b", "c", "d", "e"}}

// mustCompile compiles a YAML definition against bank.
func mustCompile(t testing.TB, yaml string) *Workflow {
	t.Helper()
	d, err := Parse([]byte(yaml), YAML)
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, yaml)
	}
	w, err := Compile("test", d, bank)
	if err != nil {
		t.Fatalf("Compile: %v\n%s", err, yaml)
	}
	return w
}

// wantError checks kind, subject and detail of an error.
func wantError(t *testing.T, err error, kind base.Kind, subject, detail string) {
	t.Helper()
	e, ok := errors.AsType[*base.Error](err)
	if !ok {
		t.Fatalf("got error %v, want %s", err, detail)
	}
	if e.Kind != kind || e.Subject != subject || e.Detail != detail {
		t.Errorf("got  %v/%s %s\nwant %v/%s %s", e.Kind, e.Subject, e.Detail, kind, subject, detail)
	}
}

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }
