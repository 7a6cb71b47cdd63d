package progress

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	fault := errors.New("fault")
	called := false
	if err := Run(&out, "working", func() error { called = true; return fault }); !errors.Is(err, fault) || !called {
		t.Errorf("error %v, called %v", err, called)
	}
	if out.Len() > 0 {
		t.Errorf("wrote %q", &out)
	}
}

func TestShow(t *testing.T) {
	for _, test := range []struct {
		name  string
		takes time.Duration
		shown bool
	}{
		{"short work is not shown", patience / 2, false},
		{"long work is", 3 * patience, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				done := make(chan struct{})
				time.AfterFunc(test.takes, func() { close(done) })
				show(&out, "working", done)
				if shown := bytes.Contains(out.Bytes(), []byte("working")); shown != test.shown {
					t.Errorf("wrote %q", &out)
				}
			})
		})
	}
}
