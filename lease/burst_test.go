package lease

import (
	"testing"

	"github.com/tenure-faas/tenure/base"
)

// Before a successor the local users that wait have as many turns as there are
// before the first of them is durable, up to Burst; at least Turns.
func TestTurnsBeforeAHandOver(t *testing.T) {
	for _, tt := range []struct {
		name string
		// durable is the turn after which the first turn's batch is durable; 0: never.
		durable, want int
	}{
		{"nothing becomes durable", 0, 64},
		{"durable at once", 1, 8},
		{"durable after twenty", 20, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, 1)
			b.hold()
			const waiting = 100
			users := make([]User, waiting)
			for i := range users {
				users[i].Mode = Write
			}
			first := User{Mode: Write}
			b.c.Acquire(0, &first, true) // the others queue behind it
			b.receive(Record{Kind: Req, From: 2, Pred: 1, Ticket: 2})
			for i := range users {
				b.c.Acquire(0, &users[i], true)
			}
			b.c.Release(&first, 0)
			turns := 0
			for i := range users {
				if !users[i].Has() {
					break
				}
				turns++
				b.c.Release(&users[i], base.Number(i+1))
				if turns == tt.durable {
					b.c.Durable(1)
				}
			}
			// One turn, and that which got the lease, were before. Those that had begun
			// before the first was durable are eight at most.
			if before := 2; turns < tt.want-before || turns > tt.want+8 {
				t.Errorf("%d turns before the hand-over, want %d", turns, tt.want)
			}
			b.c.Durable(waiting)
			granted := false
			for _, a := range b.c.Actions(nil) {
				granted = granted || a.Kind == Send && a.Record.Kind == Grant
			}
			if !granted {
				t.Error("the lease does not go")
			}
		})
	}
}
