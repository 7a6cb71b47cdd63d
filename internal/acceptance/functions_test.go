package acceptance

import (
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
)

// TestHostileFunctions runs each misbehaving handler, alone on a server, and then
// a good one.
func TestHostileFunctions(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	for _, test := range []struct {
		handler, timeout string
		status           int
		word, detail     string
	}{
		{"panic", "30s", 422, "function-error", "panic: the sky is falling"},
		{"nil", "30s", 422, "function-error", "nil pointer dereference"},
		{"recurse", "30s", 422, "function-error", "crashed: "},
		{"bomb", "30s", 422, "function-error", "out of memory"},
		// These end only because they are stopped; patience bounds how late.
		{"spin", "200ms", 504, "timeout", "unchanged"},
		{"fill", "200ms", 504, "timeout", "unchanged"},
		{"sleep", "200ms", 504, "timeout", "unchanged"},
	} {
		t.Run(test.handler, func(t *testing.T) {
			r := s.call(t, "POST", "/v1/functions/hostile/"+test.handler+"/invoke", `{"ms":600000}`, "Tenure-Timeout: "+test.timeout)
			if p := r.refused(t, test.status, test.word); !strings.Contains(p.Detail, test.detail) {
				t.Errorf("the detail %q is without %q", p.Detail, test.detail)
			}
			s.serves(t)
		})
	}
	s.call(t, "GET", "/v1/state/t/trace", "").refused(t, 404, "not-found")
}

// TestHostileFunctionsTogether runs them all at a time beside good requests: a
// function that misbehaves takes nothing from the others but time.
func TestHostileFunctionsTogether(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	var b background
	var bad []<-chan reply
	for _, handler := range []string{"panic", "nil", "bomb", "spin", "fill", "sleep"} {
		bad = append(bad, b.call(s, "POST", "/v1/functions/hostile/"+handler+"/invoke", `{"ms":600000}`, "Tenure-Timeout: 1s"))
	}
	for range 20 {
		s.serves(t)
	}
	b.wait(t)
	for _, answer := range bad {
		if r := <-answer; r.status != 422 && r.status != 504 {
			t.Errorf("%s: status %d: %s", r.of, r.status, r.body)
		}
	}
	until(t, "the end of all invocations", func() bool { return s.load(t) == 0 })
	s.serves(t)
}

// moduleHead begins every module.
const moduleHead = "\x00asm\x01\x00\x00\x00"

// TestHostileModules deploys what must not be deployed.
func TestHostileModules(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	good := must(t, module1)
	for _, test := range []struct{ name, module, detail string }{
		{"empty", "", "not a WebAssembly module"},
		{"text", "#!/bin/sh\nrm -rf /\n", "not a WebAssembly module"},
		{"head only", moduleHead, `no export "memory"`},
		{"another version", "\x00asm\x02\x00\x00\x00", ""},
		{"cut", good[:len(good)/2], ""},
		{"rest", good + "\x00", ""},
		{"section of 4 GiB", moduleHead + "\x01\xff\xff\xff\xff\x0f", ""},
		{"billion types", moduleHead + "\x01\x05\xff\xff\xff\xff\x0f", ""},
		// One page of memory, exported as "memory", and nothing else.
		{"no handlers", moduleHead + "\x05\x03\x01\x00\x01" + "\x07\x0a\x01\x06memory\x02\x00", `no export "tenure_handlers"`},
		// A function () -> () from the host.
		{"forbidden import", moduleHead + "\x01\x04\x01\x60\x00\x00" + "\x02\x0e\x01\x03env\x06system\x00\x00", "env.system"},
		{
			"files", moduleHead + "\x01\x04\x01\x60\x00\x00" + "\x02\x24\x01\x16wasi_snapshot_preview1\x09path_open\x00\x00",
			"wasi_snapshot_preview1.path_open",
		},
		// More memory than an instance may have.
		{"memory of 4 GiB", moduleHead + "\x05\x05\x01\x00\x80\x80\x04" + "\x07\x0a\x01\x06memory\x02\x00", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{"bad", "hostile"} {
				r := s.call(t, "PUT", "/v1/functions/"+name, test.module, "Content-Type: application/wasm")
				if p := r.refused(t, 400, "invalid-module"); !strings.Contains(p.Detail, test.detail) {
					t.Errorf("the detail %q is without %q", p.Detail, test.detail)
				}
			}
			s.call(t, "GET", "/v1/functions/bad", "").refused(t, 404, "not-found")
			s.serves(t)
		})
	}
}
