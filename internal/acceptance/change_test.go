package acceptance

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
)

const (
	clients  = 8
	accounts = 8
	money    = 1_000_000
)

// request is one transfer under its own idempotency key.
type request struct{ key, body, answer string }

// transfers makes one transfer after the other and returns those that were
// acknowledged. It stops at the first that is not: how many of those may have
// happened nevertheless is unknown.
func (s *server) transfers(t *testing.T, client int, began func()) (done []*request, unknown int) {
	for n := 0; ; n++ {
		r := &request{
			key:  fmt.Sprintf("c%d-n%d", client, n),
			body: fmt.Sprintf(`{"from":"a%d","to":"a%d","amount":%d}`, n%accounts, (n+1+client%(accounts-1))%accounts, 1+n%7),
		}
		answer, err := s.try("POST", "/v1/workflows/transfer/invoke", strings.NewReader(r.body), "Idempotency-Key: "+r.key)
		switch op, isOp := errors.AsType[*net.OpError](err); {
		case isOp && op.Op == "dial":
			return done, 0 // the listener is closed: nothing was sent
		case err != nil:
			return done, 1
		case answer.status == 503 && answer.header.Get("Retry-After") != "":
			return done, 0
		case answer.status != 200:
			t.Errorf("transfer %s: %d %s", r.key, answer.status, answer.body)
			return done, 0
		}
		r.answer = answer.body
		if done = append(done, r); n == 20 {
			began()
		}
	}
}

// TestGracefulStop stops a node under transfers. After the next start every
// transfer that was acknowledged is there once, every other one is not, and no
// money is lost.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := started(t, node.Options{Data: data})
	for i := range accounts {
		s.call(t, "PUT", fmt.Sprintf("/v1/state/accounts/a%d", i), fmt.Sprint(money)).want(t, 204)
	}
	var steady, ended sync.WaitGroup
	steady.Add(clients)
	done, unknown := make([][]*request, clients), make([]int, clients)
	for i := range clients {
		ended.Go(func() {
			once := sync.OnceFunc(steady.Done)
			defer once() // also if it ended early, which is an error already
			done[i], unknown[i] = s.transfers(t, i, once)
		})
	}
	steady.Wait()
	s.stop(t)
	ended.Wait()

	s = start(t, node.Options{Data: data})
	sum, writes := 0, -accounts // the first write of each opened it
	for i := range accounts {
		r := s.call(t, "GET", fmt.Sprintf("/v1/state/accounts/a%d", i), "").want(t, 200)
		var balance, version int
		if _, err := fmt.Sscanf(r.body+" "+r.header.Get("ETag"), "%d \"%d\"", &balance, &version); err != nil {
			t.Fatal(err)
		}
		sum, writes = sum+balance, writes+version
	}
	acknowledged, open := 0, 0
	for i := range clients {
		acknowledged, open = acknowledged+len(done[i]), open+unknown[i]
		for _, r := range done[i] {
			again := s.call(t, "POST", "/v1/workflows/transfer/invoke", r.body, "Idempotency-Key: "+r.key).gives(t, r.answer)
			if again.header.Get("Tenure-Replayed") != "true" {
				t.Fatalf("acknowledged transfer %s was lost", r.key)
			}
		}
	}
	t.Logf("%d transfers acknowledged, %d unknown", acknowledged, open)
	if sum != accounts*money {
		t.Errorf("the accounts hold %d, want %d", sum, accounts*money)
	}
	if acknowledged < 20*clients || writes < 2*acknowledged || writes > 2*(acknowledged+open) {
		t.Errorf("%d writes of accounts for %d acknowledged and %d unknown transfers", writes, acknowledged, open)
	}
}

// TestRedeployUnderLoad replaces a function again and again while it is called:
// no call notices but by the version that answers.
func TestRedeployUnderLoad(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	const flow = `{"functions":{"version":{"function":"hostile"},"sleep":{"function":"hostile","after":["version"]},
		"again":{"function":"hostile","handler":"version","after":["sleep"]}}}`
	s.call(t, "PUT", "/v1/workflows/versions", flow).want(t, 201)
	var stop atomic.Bool
	var seen [2]atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for !stop.Load() {
				r, err := s.try("POST", "/v1/workflows/versions/invoke", strings.NewReader(`{"ms":1}`))
				switch {
				case err != nil:
					t.Error(err)
				case r.status != 200:
					t.Errorf("%d: %s", r.status, r.body)
				case r.body == `{"version":1,"sleep":null,"again":1}`:
					seen[0].Add(1)
				case r.body == `{"version":2,"sleep":null,"again":2}`:
					seen[1].Add(1)
				default:
					t.Errorf("one invocation saw two versions: %s", r.body)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	for range 5 {
		for i, module := range []func() (string, error){module2, module1} {
			s.deploy(t, must(t, module), "").want(t, 201)
			before := seen[1-i].Load()
			until(t, "a call of the new version", func() bool { return t.Failed() || seen[1-i].Load() > before+clients })
		}
	}
	stop.Store(true)
	running.Wait()
	s.serves(t)
}
