package sim_test

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/sim"
)

// run is a random workload with crashes, partitions and new connections, which
// depends on the seed alone. It returns the hash of the fabric, one of all that
// the users saw, the end of the trace, and the number of events.
func run(t testing.TB, seed uint64, faults sim.Faults) (events, seen uint64, trace []string, n uint64) {
	f := sim.New(sim.Options{Seed: seed, Faults: faults, TraceLength: 50})
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	random := rand.New(rand.NewPCG(seed, 99))
	nodes := []*node{open(t, f, "a"), open(t, f, "b"), open(t, f, "c")}
	sum := fnv.New64a()
	poll := func() {
		for _, n := range nodes {
			for _, c := range n.poll() {
				fmt.Fprint(sum, n.name, c, f.Now())
			}
		}
	}
	for range 10 {
		i := random.IntN(3)
		a, b := nodes[i], nodes[(i+1)%3]
		x := a.pair(rdma.QueuePairOptions{Peer: b.name, Timeout: time.Millisecond})
		y := b.pair(rdma.QueuePairOptions{Peer: a.name, Timeout: time.Millisecond})
		a.must(y.Accept(x.Address()))
		fmt.Fprint(sum, x.Address(), b.memory.Remote(), x.Connect(t.Context(), y.Address()))
		for range 12 {
			at, n := random.IntN(400)*8, random.IntN(64)
			remote := b.memory.Remote()
			w := []rdma.WorkRequest{
				rdma.Read(1, a.memory.Local(at, n), remote, uint64(random.IntN(2048))),
				rdma.Write(2, a.memory.Local(at, n), remote, uint64(random.IntN(2048))),
				rdma.WriteImm(3, a.memory.Local(at, n), remote, uint64(random.IntN(2048)), 1),
				rdma.CAS(4, a.memory.Local(at, 8), remote, 4088, random.Uint64N(2), 1),
				rdma.FAA(5, a.memory.Local(at, 8), remote, 4080, 1),
			}[random.IntN(5)]
			w.Flags ^= rdma.Flags(random.IntN(2)) * rdma.Fence
			a.memory.Store(at, random.Uint64())
			_, err := x.Post([]rdma.WorkRequest{w})
			fmt.Fprint(sum, err)
			f.RunUntil(f.Now() + time.Duration(random.IntN(20))*us)
			poll()
		}
		switch random.IntN(8) {
		case 0:
			f.Crash(b.name)
			nodes[(i+1)%3] = open(t, f, b.name)
		case 1:
			f.PartitionOneWay(a.name, b.name)
		case 2:
			f.Pause(b.name)
		case 3:
			f.HealAll()
			f.Resume("a")
			f.Resume("b")
			f.Resume("c")
		case 4:
			b.must(y.Close())
		}
	}
	drain(f)
	poll()
	for _, n := range nodes {
		fmt.Fprintf(sum, "%x", n.memory.Bytes())
	}
	return f.Hash(), sum.Sum64(), f.Trace(), f.Events()
}

// The same seed and the same calls give the same events and the same results,
// with other memory mapped each time.
func TestReplay(t *testing.T) {
	distinct := map[uint64]bool{}
	const count = 100
	events := uint64(0)
	seeds(t, count, func(t *testing.T, seed uint64) bool {
		hash, seen, trace, n := run(t, seed, sim.Swarm(seed))
		hash2, seen2, trace2, n2 := run(t, seed, sim.Swarm(seed))
		if hash != hash2 || seen != seen2 || n != n2 || !slices.Equal(trace, trace2) {
			t.Errorf("two runs differ: events %x and %x, results %x and %x", hash, hash2, seen, seen2)
		}
		events += n
		distinct[hash] = true
		return false
	})
	if len(distinct) != count || events < 100*count {
		t.Errorf("%d seeds gave %d runs with %d events", count, len(distinct), events)
	}
}

// A fault that is switched on draws from a stream of its own: what the others do
// stays. Here delays must be the same with and without early acks.
func TestStreamsAreIndependent(t *testing.T) {
	arrivals := func(faults sim.Faults) []time.Duration {
		faults.Delay = sim.Range{Min: us, Max: 50 * us}
		f := newFabric(t, sim.Options{Seed: 5, Faults: faults})
		a, b := open(t, f, "a"), open(t, f, "b")
		x, _ := join(a, b, rdma.QueuePairOptions{})
		var all []time.Duration
		for i := range uint64(20) {
			// A READ of one byte, whose effect is at once when it arrives.
			before := f.Now()
			a.do(x, rdma.Read(i, a.memory.Local(0, 1), b.memory.Remote(), 0))
			all = append(all, f.Now()-before)
		}
		return all
	}
	if x, y := arrivals(sim.Faults{}), arrivals(sim.Faults{EarlyAck: 0.5, SplitAtomics: 0.5, Tear: 0.5}); !slices.Equal(x, y) {
		t.Errorf("other faults shift delays:\n%v\n%v", x, y)
	}
}

// An outer simulation with events of its own sees the fabric's at their times.
func TestNextAndRunUntil(t *testing.T) {
	f, a, b, x, _ := pairOf(t, sim.Options{}, rdma.QueuePairOptions{Timeout: time.Millisecond})
	if at, ok := f.Next(); ok || f.Step() {
		t.Errorf("an idle fabric has an event at %v", at)
	}
	if n := f.RunUntil(10 * us); n != 0 || f.Now() != 10*us {
		t.Errorf("%d events until %v", n, f.Now())
	}
	a.post(x, rdma.Read(1, a.memory.Local(0, 8), b.memory.Remote(), 0))
	var times []time.Duration
	for at, ok := f.Next(); ok; at, ok = f.Next() {
		f.Step()
		if f.Now() != at {
			t.Errorf("the next event was to be at %v and was at %v", at, f.Now())
		}
		times = append(times, at)
	}
	if want := []time.Duration{11 * us, 12 * us}; !slices.Equal(times, want) {
		t.Errorf("events at %v, want %v: a time-out of what is done is none", times, want)
	}
	if f.RunUntil(us); f.Now() != 12*us {
		t.Errorf("time went back to %v", f.Now())
	}
}

// BenchmarkStep measures an event with its share of Post and Poll: 16 requests
// in flight, half READs and half WRITEs of 64 bytes, in calm and under faults
// that break nothing.
func BenchmarkStep(b *testing.B) {
	for _, tt := range []struct {
		name   string
		faults sim.Faults
	}{
		{"calm", sim.Faults{}},
		{"faults", sim.Faults{Delay: sim.Range{Min: us, Max: 20 * us}, Reorder: 0.3, Tear: 0.3, EarlyAck: 0.1}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			f := newFabric(b, sim.Options{Seed: 1, Faults: tt.faults})
			n, m := open(b, f, "n"), open(b, f, "m")
			x, _ := join(n, m, rdma.QueuePairOptions{})
			requests := make([]rdma.WorkRequest, 16)
			for i := range requests {
				requests[i] = rdma.Read(uint64(i), n.memory.Local(64*i, 64), m.memory.Remote(), uint64(64*i))
				if i%2 == 1 {
					requests[i].Op = rdma.OpWrite
				}
			}
			polled := make([]rdma.Completion, 16)
			b.ReportAllocs()
			b.ResetTimer()
			free := len(requests)
			for range b.N {
				if free > 0 {
					if _, err := x.Post(requests[:free]); err != nil {
						b.Fatal(err)
					}
				}
				if !f.Step() {
					b.Fatal("nothing is left to happen")
				}
				free = n.cq.Poll(polled)
			}
		})
	}
}

// BenchmarkSeed measures a whole small simulation: see run.
func BenchmarkSeed(b *testing.B) {
	events := uint64(0)
	for seed := range uint64(b.N) {
		_, _, _, n := run(b, seed, sim.Swarm(seed))
		events += n
	}
	b.ReportMetric(float64(events)/float64(b.N), "events/op")
}
