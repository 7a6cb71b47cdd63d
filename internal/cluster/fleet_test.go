package cluster

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenure-faas/tenure/rpc"
)

// closing is a connection that knows whether it is closed.
type closing struct {
	rpc.Conn
	closed atomic.Bool
}

func (c *closing) Close() error { c.closed.Store(true); return nil }

// TestAnswersAreAwaited closes the connection to a worker that has left: not before
// the answers that are on their way have come, without which the outcome of their
// invocations would be unknown, and at last also without them.
func TestAnswersAreAwaited(t *testing.T) {
	for name, answered := range map[string]bool{"it answers": true, "it never answers": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := &closing{}
				s := &seat{conn: conn, idle: make(chan struct{})}
				if !s.begin() || !s.begin() {
					t.Fatal("no call begins on a member")
				}
				s.end()
				var wg sync.WaitGroup
				wg.Go(func() {
					if err := s.close(); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				if conn.closed.Load() || s.begin() {
					t.Errorf("closed under a call: %v; or a call begins on one that left", conn.closed.Load())
				}
				if answered {
					s.end()
				} else {
					time.Sleep(answerWait)
				}
				wg.Wait()
				if !conn.closed.Load() {
					t.Error("the connection is not closed")
				}
			})
		})
	}
}
