package leases

import (
	"slices"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
)

// TestWaitLimits holds that the limits grow, up to half a minute, and that each wait
// is counted in the bucket whose limit is the next.
func TestWaitLimits(t *testing.T) {
	limits := WaitLimits()
	if !slices.IsSorted(limits) || limits[0] != time.Microsecond || limits[40] != 1024*time.Microsecond || limits[len(limits)-1] < 16*time.Second {
		t.Errorf("limits %v", limits)
	}
	for i := range WaitBuckets {
		d := time.Hour
		if i < len(limits) {
			d = limits[i]
		}
		var w waits
		w.add(d)
		if i > 0 {
			w.add(limits[i-1] + 1)
		}
		if n := w.counts[i].Load(); n != uint64(min(i, 1))+1 {
			t.Errorf("bucket %d has %d", i, n)
		}
	}
}

// TestWaitsAreCounted has one turn that is there and one that another member holds:
// only the second waits.
func TestWaitsAreCounted(t *testing.T) {
	all := group(t, 2)
	const s = base.Slot(5)
	take := func(l *Leases, turn *Turn) lease.Status {
		p := l.Part(s)
		p.Lock()
		status := p.Acquire(s, turn, lease.Write, true)
		p.Unlock()
		if status == lease.Queued {
			<-turn.Wake()
			l.Waited(turn)
		}
		return status
	}
	give := func(l *Leases, turn *Turn) {
		p := l.Part(s)
		p.Lock()
		p.Release(turn, 0)
		p.Unlock()
	}
	var turn Turn
	take(all[0], &turn)
	give(all[0], &turn)
	before := all[0].Waits()
	if status := take(all[0], &turn); status != lease.Granted || all[0].Waits() != before {
		t.Errorf("a turn that was there is %v and counted as a wait: %+v", status, all[0].Waits())
	}
	give(all[0], &turn)
	var other Turn
	began := time.Now()
	status := take(all[1], &other)
	w, count := all[1].Waits(), uint64(0)
	for _, n := range w.Counts {
		count += n
	}
	if status != lease.Queued || count != 1 || w.Sum <= 0 || w.Sum > time.Since(began) {
		t.Errorf("a turn that was elsewhere is %v, waits %+v", status, w)
	}
	give(all[1], &other)
}
