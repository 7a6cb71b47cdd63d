package acceptance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/runtime/wasm"
	"github.com/tenure-faas/tenure/worker"
)

const (
	sleepPath = "/v1/functions/hostile/sleep/invoke"
	touchPath = "/v1/functions/hostile/touch/invoke"
	echoPath  = "/v1/functions/hostile/echo/invoke"
)

// load is how many invocations run or wait.
func (s *server) load(t testing.TB) int {
	t.Helper()
	c := into[struct{ Workers []struct{ Load int } }](t, s.call(t, "GET", "/v1/cluster", "").want(t, 200))
	return c.Workers[0].Load
}

// TestOverloaded is the row 429, for a worker whose queue is full.
func TestOverloaded(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{Worker: worker.Options{MaxRunning: 1, MaxQueued: 1}})
	var b background
	running := b.call(s, "POST", sleepPath, `{"ms":600000}`, "Tenure-Timeout: 8s")
	until(t, "one invocation", func() bool { return s.load(t) == 1 })
	queued := b.call(s, "POST", echoPath, `1`)
	until(t, "two invocations", func() bool { return s.load(t) == 2 })
	r := s.call(t, "POST", echoPath, `2`, "Idempotency-Key: k")
	if p := r.refused(t, 429, "overloaded"); p.Invocation == "" {
		t.Errorf("no invocation: %s", r.body)
	}
	b.wait(t)
	(<-running).refused(t, 504, "timeout")
	(<-queued).gives(t, `1`)
	// A refusal is not an outcome: the same key runs now.
	if r := s.call(t, "POST", echoPath, `2`, "Idempotency-Key: k").gives(t, `2`); r.header.Get("Tenure-Replayed") != "" {
		t.Errorf("headers %v", r.header)
	}
	s.serves(t)
}

// TestOverloadedGateway is the same row, for a gateway that has as many
// invocations as it may.
func TestOverloadedGateway(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{Gateway: gateway.Options{MaxInFlight: 1}})
	var b background
	running := b.call(s, "POST", sleepPath, `{"ms":8000}`)
	until(t, "one invocation", func() bool { return s.load(t) == 1 })
	s.call(t, "POST", echoPath, ``).refused(t, 429, "overloaded")
	s.call(t, "POST", "/v1/state", ``).refused(t, 429, "overloaded")
	b.wait(t)
	(<-running).gives(t, "null")
	s.serves(t)
}

// TestUnavailable is the row 503 of a server that stops: the invocation that runs
// ends as if nothing were, others are refused.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	var b background
	running := b.call(s, "POST", touchPath, `{"keys":["last"],"ms":8000}`, "Idempotency-Key: k")
	until(t, "one invocation", func() bool { return s.load(t) == 1 })
	s.cancel()
	until(t, "the drain", func() bool { return s.call(t, "GET", "/readyz", "").status == 503 })
	s.call(t, "GET", "/readyz", "").refused(t, 503, "unavailable")
	s.call(t, "POST", echoPath, "").refused(t, 503, "unavailable")
	s.call(t, "POST", "/v1/txn", `{"ops":[{"op":"get","table":"t","key":"k"}]}`).refused(t, 503, "unavailable")
	s.call(t, "GET", "/v1/state/t/last", "").refused(t, 503, "unavailable")
	s.call(t, "GET", "/healthz", "").want(t, 200)
	b.wait(t)
	(<-running).gives(t, "null")
	s.stop(t)
}

// TestNoInstance is the row 503 of a server that may build no more instances.
func TestNoInstance(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{Wasm: wasm.Options{MaxInstances: 1}})
	var b background
	running := b.call(s, "POST", touchPath, `{"keys":["k"],"ms":8000}`)
	until(t, "the lock", func() bool {
		return strings.Contains(into[lease](t, s.call(t, "GET", "/v1/leases/t/k", "")).Why, "hold it exclusive")
	})
	s.call(t, "POST", echoPath, "").refused(t, 503, "unavailable")
	s.call(t, "PUT", "/v1/state/t/other", "x").want(t, 204)
	b.wait(t)
	(<-running).gives(t, "null")
	s.serves(t)
}

// TestConflict is the other row 503: two transactions that want the same two
// keys, undeclared, in opposite order, of a worker that tries each only once.
func TestConflict(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{Worker: worker.Options{MaxAttempts: 1}})
	// One key is taken out of order only if it is free: it has to be the lower.
	low, high := base.Key{Table: "t", Key: "x"}, base.Key{Table: "t", Key: "y"}
	if low.Compare(high) > 0 {
		low, high = high, low
	}
	var b background
	first := b.call(s, "POST", touchPath, fmt.Sprintf(`{"keys":[%q],"ms":8000}`, low.Key))
	until(t, "the first lock", func() bool {
		return strings.Contains(into[lease](t, s.call(t, "GET", "/v1/leases/"+low.String(), "")).Why, "hold it exclusive")
	})
	second := fmt.Sprintf(`{"keys":[%q,%q]}`, high.Key, low.Key)
	s.call(t, "POST", touchPath, second, "Idempotency-Key: k").refused(t, 503, "conflict")
	b.wait(t)
	(<-first).gives(t, "null")
	s.call(t, "GET", "/v1/state/"+high.String(), "").refused(t, 404, "not-found")
	s.call(t, "POST", touchPath, second, "Idempotency-Key: k").gives(t, "null")
	s.serves(t)
}

// TestTimeout is the row 504, for a function that runs, one that waits for a
// lock, and a deadline from the definition.
func TestTimeout(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	unchanged := func(r reply) {
		t.Helper()
		if p := r.refused(t, 504, "timeout"); !strings.Contains(p.Detail, "unchanged") || strings.Contains(p.Detail, "unknown") || p.Invocation == "" {
			t.Errorf("the problem is %+v", p)
		}
	}
	unchanged(s.call(t, "POST", touchPath, `{"keys":["k"],"ms":600000}`, "Tenure-Timeout: 100ms", "Idempotency-Key: k"))
	s.call(t, "GET", "/v1/state/t/k", "").refused(t, 404, "not-found")

	var b background
	holder := b.call(s, "POST", touchPath, `{"keys":["k"],"ms":8000}`)
	until(t, "the lock", func() bool {
		return strings.Contains(into[lease](t, s.call(t, "GET", "/v1/leases/t/k", "")).Why, "hold it exclusive")
	})
	unchanged(s.call(t, "PUT", "/v1/state/t/k", "mine", "Tenure-Timeout: 100ms"))
	b.wait(t)
	(<-holder).gives(t, "null")
	s.call(t, "GET", "/v1/state/t/k", "").gives(t, "1")

	const slow = `{"functions":{"sleep":{"function":"hostile"}},"timeout":"100ms"}`
	s.call(t, "PUT", "/v1/workflows/slow", slow).want(t, 201)
	unchanged(s.call(t, "POST", "/v1/workflows/slow/invoke", `{"ms":600000}`))
	s.call(t, "POST", "/v1/workflows/slow/invoke", `{"ms":150}`, "Tenure-Timeout: 1m").gives(t, `{"sleep":null}`)
	s.serves(t)
}
