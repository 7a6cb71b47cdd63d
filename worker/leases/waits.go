package leases

import (
	"slices"
	"sync/atomic"
	"time"
)

// WaitBuckets is how many buckets Waits has, the last for what is longer than all
// limits.
const WaitBuckets = 56

// waitLimits are the upper limits of the buckets but the last: four in each power
// of two up to a millisecond, where the hand-overs are, then the powers of two up
// to 33 s.
var waitLimits = makeWaitLimits()

func makeWaitLimits() (limits [WaitBuckets - 1]time.Duration) {
	i, limit := 0, time.Microsecond
	for ; limit < 1024*time.Microsecond; limit *= 2 {
		for quarter := range time.Duration(4) {
			limits[i] = limit + quarter*limit/4
			i++
		}
	}
	for ; i < len(limits); i++ {
		limits[i] = limit
		limit *= 2
	}
	return limits
}

// WaitLimits are the upper limits of the buckets of Waits but the last, which has
// none. The caller may not modify them.
func WaitLimits() []time.Duration { return waitLimits[:] }

// Waits say how long transactions waited for turns that were not given at once,
// from Acquire until they went on or gave up: the time of a lease's way to this
// worker, and that in the queues at both ends.
type Waits struct {
	// Counts are of the waits up to the limit of each bucket and over the one
	// before, Sum is the time of all.
	Counts [WaitBuckets]uint64
	Sum    time.Duration
}

// waits are Waits that grow. It is safe for concurrent use.
type waits struct {
	counts [WaitBuckets]atomic.Uint64
	sum    atomic.Int64
}

func (w *waits) add(d time.Duration) {
	bucket, _ := slices.BinarySearch(waitLimits[:], d)
	w.counts[bucket].Add(1)
	w.sum.Add(int64(d))
}

// Waited counts the wait for a turn that was queued and has begun, or was given up.
// Call it once for each.
func (l *Leases) Waited(t *Turn) { l.waits.add(time.Since(t.since)) }

// Waits is a copy of what was counted; a wait that ends meanwhile may be in one of
// Counts and Sum only.
func (l *Leases) Waits() (w Waits) {
	for i := range w.Counts {
		w.Counts[i] = l.waits.counts[i].Load()
	}
	w.Sum = time.Duration(l.waits.sum.Load())
	return w
}
