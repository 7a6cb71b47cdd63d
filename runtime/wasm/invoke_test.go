package wasm

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

func TestEveryMethodOfTheContext(t *testing.T) {
	host := &fakeHost{}
	out, err := shared(t).Invoke(t.Context(), runtime.Call{Handler: "all", Input: []byte(`{}`), Host: host})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"n":-7,"big":100000,"found":false,"scanned":"k1=v1;k2=-7;","large":3,"called":["other","echo","in"],` +
		`"result":{"a":1},"ok":true,"unknown":false,"now":"2025-02-03T04:05:06.000000007Z","rand":true,` +
		`"id":"00000000000000000000000004","refused":true,` +
		`"long":"put: a key in table \"t\" has 2000 bytes, the limit is 1024"}`
	if string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
	if len(host.logs) != 1 || host.logs[0] != "n is -7" {
		t.Errorf("logs = %q", host.logs)
	}
}

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		handler, input string
		output         string
		kind           base.Kind
		text           string // part of the error
		discards       bool
	}{
		{handler: "echo", input: "hello", output: "hello"},
		{handler: "echo", input: ""},
		{handler: "echo", input: strings.Repeat("x", 1<<20), output: strings.Repeat("x", 1<<20)},
		{handler: "decode", input: `{"from":"ann","amount":3}`, output: `{"from":"ann","amount":3}`},
		{handler: "json", input: `{"from":"ann","amount":3}`, output: `{"from":"ann","amount":3}`},
		{handler: "decode", input: `{`, kind: base.Aborted, text: "unexpected end of JSON"},
		{handler: "fail", input: "no money", kind: base.Aborted, text: "no money"},
		{handler: "fail", input: "bad \xff", kind: base.Aborted, text: "bad \ufffd"},
		{handler: "fail", input: strings.Repeat("x", 5000), kind: base.Aborted, text: strings.Repeat("x", maxReasonBytes)},
		{handler: "abort", kind: base.Aborted, text: "first"},
		{handler: "nobody", kind: base.NotFound, text: `no handler "nobody"`},
		{handler: "echo", input: strings.Repeat("x", maxBodyBytes+1), kind: base.TooLarge, text: "the limit is"},
		{handler: "panic", input: "x", kind: base.FunctionError, text: "crashed: panic: boom x", discards: true},
		{handler: "panicLong", kind: base.FunctionError, text: "crashed: panic: xxxx", discards: true},
		{handler: "nil", kind: base.FunctionError, text: "nil pointer dereference", discards: true},
		{handler: "recurse", kind: base.FunctionError, text: "crashed: ", discards: true},
		{handler: "bomb", kind: base.FunctionError, text: "out of memory", discards: true},
		{handler: "exit", kind: base.FunctionError, text: "exited with code 7", discards: true},
		{handler: "huge", kind: base.FunctionError, text: "broke a rule: the output has 7340032 bytes", discards: true},
		{handler: "files", output: "open /etc/passwd: Bad file number 0 0"},
	} {
		name := tt.handler + "/" + tt.input[:min(len(tt.input), 10)]
		t.Run(name, func(t *testing.T) {
			before := shared(t).Stats().Discards
			output, err := invoke(t, shared(t), tt.handler, tt.input)
			if (err != nil) != (tt.text != "") {
				t.Fatalf("output %.100q, error %v", output, err)
			}
			if err == nil && output != tt.output {
				t.Errorf("output %.200q, want %.200q", output, tt.output)
			}
			if err != nil {
				var e *base.Error
				if !errors.As(err, &e) || e.Kind != tt.kind || !strings.Contains(e.Detail+e.Reason, tt.text) {
					t.Errorf("error %.300v, want kind %v with %.100q", err, tt.kind, tt.text)
				} else if strings.Contains(e.Detail, "goroutine ") || strings.Contains(e.Detail, ".go:") || len(e.Detail) > maxCrashBytes+100 {
					t.Errorf("detail shows too much: %.300s", e.Detail)
				}
			}
			if discards := shared(t).Stats().Discards > before; discards != tt.discards {
				t.Errorf("instance discarded: %v, want %v", discards, tt.discards)
			}
			if out, err := invoke(t, shared(t), "echo", "alive"); err != nil || out != "alive" {
				t.Errorf("the next call: %q, %v", out, err)
			}
		})
	}
}

func TestAbortReachesTheHost(t *testing.T) {
	host := &fakeHost{}
	_, err := shared(t).Invoke(t.Context(), runtime.Call{Handler: "abort", Host: host})
	if base.KindOf(err) != base.Aborted || host.reason != "first" {
		t.Errorf("error %v, reason %q", err, host.reason)
	}
}

// TestDeadline has guests that would run for ever or for centuries.
func TestDeadline(t *testing.T) {
	for _, handler := range []string{"loop", "hostloop", "fib", "fill", "sleep"} {
		t.Run(handler, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := shared(t).Invoke(ctx, runtime.Call{Handler: handler, Host: &fakeHost{}})
			if base.KindOf(err) != base.Timeout || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if out, err := invoke(t, shared(t), "echo", "alive"); err != nil || out != "alive" {
				t.Errorf("the next call: %q, %v", out, err)
			}
		})
	}
}

func TestCancellationStopsAGuest(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan struct{})
	done := make(chan error)
	go func() {
		close(running)
		_, err := shared(t).Invoke(ctx, runtime.Call{Handler: "loop", Host: &fakeHost{}})
		done <- err
	}()
	<-running
	cancel()
	if err := <-done; base.KindOf(err) != base.Timeout {
		t.Errorf("error %v", err)
	}
}

// TestAttemptOver expects that the instance of a repeated attempt is used again.
func TestAttemptOver(t *testing.T) {
	if _, err := invoke(t, shared(t), "noop", ""); err != nil {
		t.Fatal(err)
	}
	before := shared(t).Stats()
	_, err := shared(t).Invoke(t.Context(), runtime.Call{Handler: "retry", Host: &fakeHost{over: true}})
	if err == nil || !strings.Contains(err.Error(), "attempt is over") {
		t.Errorf("error %v", err)
	}
	after := shared(t).Stats()
	if after.Discards != before.Discards || after.Instantiations != before.Instantiations {
		t.Errorf("stats %+v, then %+v", before, after)
	}
}

func TestPanicOfTheHostGoesOn(t *testing.T) {
	b := load(t, Options{}, false)
	defer func() {
		if p := recover(); p == nil || !strings.Contains(p.(string), "assertion") {
			t.Errorf("recovered %v", p)
		}
		// The panic is meant to end the process, so the instance it left behind is not accounted for.
		b.forget()
		b.runtime.unreserve()
	}()
	_, err := b.Invoke(t.Context(), runtime.Call{Handler: "get", Host: &fakeHost{panicky: true}})
	t.Errorf("returned %v", err)
}

func TestOutputOfTheProcess(t *testing.T) {
	host := &fakeHost{}
	if _, err := shared(t).Invoke(t.Context(), runtime.Call{Handler: "print", Host: host}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(host.logs, ","); got != "one,three,two" {
		t.Errorf("logs %q", got)
	}
	host = &fakeHost{}
	if _, err := shared(t).Invoke(t.Context(), runtime.Call{Handler: "flood", Host: host}); err != nil {
		t.Fatal(err)
	}
	if total := len(strings.Join(host.logs, "")); total > maxLogBytes {
		t.Errorf("%d bytes logged", total)
	}
}

func TestPanicIsLogged(t *testing.T) {
	host := &fakeHost{}
	_, err := shared(t).Invoke(t.Context(), runtime.Call{Handler: "panic", Input: []byte("x"), Host: host})
	if base.KindOf(err) != base.FunctionError || len(host.logs) == 0 || host.logs[0] != "panic: boom x" {
		t.Errorf("error %v, logs %q", err, host.logs)
	}
}

func TestFuelIsCounted(t *testing.T) {
	b := load(t, Options{}, false)
	used := func(input string) int64 {
		before := b.Stats().FuelUsed
		if _, err := invoke(t, b, "echo", input); err != nil {
			t.Fatal(err)
		}
		return b.Stats().FuelUsed - before
	}
	used("")
	small, large := used(""), used(strings.Repeat("x", 1<<20))
	if small <= 0 || large <= small {
		t.Errorf("fuel %d without input, %d with 1 MiB", small, large)
	}
}

// TestBankExample runs a whole transfer of the example, compiled as a user would.
func TestBankExample(t *testing.T) {
	module, err := buildGuest(t.TempDir(), "../../examples/bank/function")
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := shared(t).runtime.Load(t.Context(), "bank", module, false)
	if err != nil {
		t.Fatal(err)
	}
	defer bundle.Close()
	if got := strings.Join(bundle.Handlers(), ","); got != "deposit,open,withdraw" {
		t.Errorf("handlers %s", got)
	}
	host := &transferHost{}
	host.values = map[base.Key]string{{Table: "accounts", Key: "ann"}: "100"}
	for _, handler := range []string{"withdraw", "deposit"} {
		call := runtime.Call{Handler: handler, Input: []byte(`{"from":"ann","to":"bob","amount":30}`), Host: host}
		if host.last, err = bundle.Invoke(t.Context(), call); err != nil {
			t.Fatal(err)
		}
	}
	if string(host.last) != `{"from_balance":70,"to_balance":30}` || host.values[base.Key{Table: "accounts", Key: "bob"}] != "30" {
		t.Errorf("output %s, values %v", host.last, host.values)
	}
	call := runtime.Call{Handler: "withdraw", Input: []byte(`{"from":"ann","to":"bob","amount":71}`), Host: host}
	var e *base.Error
	if _, err = bundle.Invoke(t.Context(), call); !errors.As(err, &e) || e.Kind != base.Aborted || e.Reason != "insufficient funds" {
		t.Errorf("error %v", err)
	}
}

// transferHost gives the last output as the result of every step.
type transferHost struct {
	fakeHost
	last []byte
}

func (h *transferHost) Result(string) ([]byte, bool) { return h.last, true }

// TestAbortOfAssemblyScript calls env.abort as the code that AssemblyScript generates does.
func TestAbortOfAssemblyScript(t *testing.T) {
	for _, tt := range []struct {
		message byte // its address
		want    string
	}{{16, "crashed: panic: hé (ab:7:9)"}, {0, "crashed: panic:  (ab:7:9)"}, {2, "crashed: panic:  (ab:7:9)"}} {
		m := guestOf(invokeWith(0x41, tt.message, 0x41, 32, 0x41, 7, 0x41, 9, 0x10, 0, 0x41, 0))
		m.imports = []asmImport{{"env", "abort", "iiii", ""}}
		m.data = "h" + strings.Repeat("\x00", 11) + "\x04\x00\x00\x00" + "h\x00\xe9\x00" +
			strings.Repeat("\x00", 8) + "\x04\x00\x00\x00" + "a\x00b\x00"
		_, err := invoke(t, loadSmall(t, Options{}, m, false), "h", "")
		if base.KindOf(err) != base.FunctionError || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}
