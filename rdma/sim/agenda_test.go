package sim

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Sizes is how many events and how many waiting requests f remembers, for tests
// outside of the package.
func Sizes(f *Fabric) (events, waiting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.agenda), len(f.parked) + len(f.held)
}

// The agenda gives events by time, and those of one time as they came; compact
// drops just the stale ones.
func TestAgendaOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var a agenda
		var want []event
		fresh, old := &request{gen: 1}, &request{gen: 2}
		for seq := range uint64(random.IntN(100)) {
			e := event{at: time.Duration(random.IntN(10)), seq: seq, r: fresh, gen: 1, kind: kindPart}
			if random.IntN(3) == 0 {
				e.r = old
			} else {
				want = append(want, e)
			}
			a.push(e)
		}
		a.compact()
		slices.SortFunc(want, func(x, y event) int {
			if x.before(&y) {
				return -1
			}
			return 1
		})
		for i := range want {
			if got := a.pop(); got != want[i] {
				t.Fatalf("event %d of %d is %+v, want %+v", i, len(want), got, want[i])
			}
		}
		if len(a) > 0 {
			t.Fatalf("%d events are left", len(a))
		}
	}
}

// Torn requests are cut between bytes, wholly and without overlap, for every
// length; every place and every order occurs.
func TestTearCoversEveryByteOnce(t *testing.T) {
	f := &Fabric{}
	f.dice.seed(3)
	firsts := map[uint32]bool{}
	for round := range 5000 {
		n := uint32(2 + round%40)
		r := &request{}
		r.wr.Local.Length = n
		f.tear(r)
		var seen [64]int
		for _, i := range r.order[:r.parts] {
			low, high := r.cut[i], r.cut[i+1]
			if low >= high || high > n {
				t.Fatalf("%d bytes: part %d is [%d,%d)", n, i, low, high)
			}
			for at := low; at < high; at++ {
				seen[at]++
			}
		}
		for at := range n {
			if seen[at] != 1 {
				t.Fatalf("%d bytes in %d parts: byte %d moves %d times", n, r.parts, at, seen[at])
			}
		}
		if n == 8 {
			firsts[r.cut[1]] = true
		}
	}
	if len(firsts) != 7 {
		t.Errorf("8 bytes were first cut at %d of 7 places", len(firsts))
	}
}

// Each kind of decision has a stream of its own, and each seed its own streams.
func TestStreamsDiffer(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(50) {
		var d dice
		d.seed(seed)
		for s := range streams {
			v := d.pcg[s].Uint64()
			if seen[v] {
				t.Fatalf("seed %d: stream %d begins like another", seed, s)
			}
			seen[v] = true
		}
	}
}

// The hash tells two histories apart if a single record of theirs differs in any
// field, or in its place.
func TestHashCoversEveryField(t *testing.T) {
	base := record{at: 1, request: 1, low: 1, high: 1, sum: 1, qp: 1, from: 1, to: 1, what: 1, op: 1, status: 1}
	seen := map[uint64]int{}
	for i, change := range []func(r *record){
		func(*record) {}, func(r *record) { r.at++ }, func(r *record) { r.request++ }, func(r *record) { r.low++ }, func(r *record) { r.high++ },
		func(r *record) { r.sum++ }, func(r *record) { r.qp++ }, func(r *record) { r.from++ }, func(r *record) { r.to++ },
		func(r *record) { r.what++ }, func(r *record) { r.op++ }, func(r *record) { r.status++ },
	} {
		for _, first := range []bool{true, false} {
			r := base
			change(&r)
			var h trace
			if first {
				h.add(&r)
				h.add(&base)
			} else {
				h.add(&base)
				h.add(&r)
			}
			if j, ok := seen[h.hash]; ok && i > 0 {
				t.Errorf("changes %d and %d have one hash", i, j)
			}
			seen[h.hash] = i
		}
	}
}

// Keys are distinct, never 0, and of one kind.
func TestKeysAreDistinct(t *testing.T) {
	seen := map[uint32]bool{0: true}
	for n := uint64(1); n < 20000; n++ {
		l, r := keys(n)
		if seen[l] || seen[r] || l == r {
			t.Fatalf("region %d has keys %#x and %#x, of which one was used before", n, l, r)
		}
		seen[l], seen[r] = true, true
	}
}

func FuzzAddress(f *testing.F) {
	f.Add(address{"a", 1}.encode())
	f.Add([]byte("sim1"))
	f.Add([]byte("sim1\x00\x00\x00\x00"))
	f.Add([]byte("tcp1 somewhere else"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAddress(b)
		if err != nil {
			return
		}
		if a.name == "" || len(a.name) > maxName || !bytes.Equal(a.encode(), b) {
			t.Errorf("%q became %+v and that %q", b, a, a.encode())
		}
	})
}
