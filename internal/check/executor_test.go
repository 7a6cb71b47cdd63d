package check

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// workload says what execute runs.
type workload struct {
	txns, clients, maxOps int
	keys                  int  // list keys, in a few tables
	window                int  // of them, how many are in use at a time; 0 is all
	plain                 bool // reads and appends only, all acknowledged
}

// execute is the reference: it runs transactions one after the other on maps, each at one point of its interval, while
// the intervals of different clients overlap. Whatever it returns is strictly serializable. Some transactions fail;
// some are unknown, and of these some take effect long after their client went on. The last one reads everything.
func execute(rng *rand.Rand, wl workload) History {
	h := make(History, wl.txns)
	points := make([]int64, wl.txns)
	clock := make([]int64, wl.clients)
	late := int64(0)
	for i := range h {
		client := rng.IntN(wl.clients)
		t := &h[i]
		*t = Txn{ID: i, Client: client, Call: clock[client] + rng.Int64N(10), Outcome: OK}
		points[i] = t.Call + rng.Int64N(40)
		t.Return = points[i] + rng.Int64N(40)
		clock[client] = t.Return
		if !wl.plain {
			switch rng.IntN(20) {
			case 0:
				t.Outcome = Failed
			case 1:
				t.Outcome = Unknown
				points[i] = t.Call + rng.Int64N(400)
			}
		}
		late = max(late, t.Return, points[i])
	}
	last := len(h) - 1
	h[last] = Txn{ID: last, Call: late + 1, Return: late + 2, Outcome: OK}
	points[last] = late + 1

	serial := make([]int, len(h))
	for i := range serial {
		serial[i] = i
	}
	slices.SortStableFunc(serial, func(i, j int) int { return cmp.Compare(points[i], points[j]) })
	db := &database{lists: map[string][]int64{}, counters: map[string]int64{}}
	for n, i := range serial {
		if i == last {
			db.readAll(&h[i])
			continue
		}
		effective := h[i].Outcome == OK || h[i].Outcome == Unknown && rng.IntN(2) == 0
		db.run(rng, &h[i], wl, n, effective)
	}
	return h
}

type database struct {
	lists    map[string][]int64
	counters map[string]int64
	elements int64
}

// run makes up the operations of t and runs them. The effects of a transaction that is not effective are undone.
func (db *database) run(rng *rand.Rand, t *Txn, wl workload, n int, effective bool) {
	before := map[string][]int64{}
	sums := map[string]int64{}
	for range 1 + rng.IntN(wl.maxOps) {
		k := rng.IntN(wl.keys)
		if wl.window > 0 {
			k = (n*wl.window/2000 + rng.IntN(wl.window)) % wl.keys // the window wanders over the keys
		}
		list, counter := fmt.Sprintf("t%d/%d", k%4, k), fmt.Sprintf("n/%d", rng.IntN(3))
		p := rng.IntN(20)
		if wl.plain {
			p %= 16
		}
		switch {
		case p < 8:
			if _, ok := before[list]; !ok {
				before[list] = db.lists[list]
			}
			db.elements++
			t.Ops = append(t.Ops, appendTo(list, db.elements))
			db.lists[list] = append(slices.Clip(db.lists[list]), db.elements)
		case p < 16:
			t.Ops = append(t.Ops, read(list, db.lists[list]...))
		case p == 16:
			t.Ops = append(t.Ops, db.scan(rng, fmt.Sprintf("t%d/", k%4)))
		case p == 17:
			t.Ops = append(t.Ops, count(counter, db.counters[counter]))
		default:
			delta := rng.Int64N(20) - 10
			t.Ops = append(t.Ops, addTo(counter, delta))
			db.counters[counter] += delta
			sums[counter] += delta
		}
	}
	if effective {
		return
	}
	for key, list := range before {
		db.lists[key] = list
	}
	for key, sum := range sums {
		db.counters[key] -= sum
	}
}

func (db *database) scan(rng *rand.Rand, prefix string) Op {
	op := Op{Kind: Scan, Prefix: prefix}
	for key, list := range db.lists {
		if strings.HasPrefix(key, prefix) && len(list) > 0 {
			op.Found = append(op.Found, Found{key, list})
		}
	}
	slices.SortFunc(op.Found, func(x, y Found) int { return strings.Compare(x.Key, y.Key) })
	if limit := rng.IntN(10); limit < len(op.Found) {
		op.Found, op.Truncated = op.Found[:limit], true
	}
	return op
}

func (db *database) readAll(t *Txn) {
	for _, key := range sortedKeys(db.lists) {
		t.Ops = append(t.Ops, read(key, db.lists[key]...))
	}
	for _, key := range sortedKeys(db.counters) {
		t.Ops = append(t.Ops, count(key, db.counters[key]))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// drawExecution lets rapid choose, and shrink, the shape of an execution.
func drawExecution(rt *rapid.T, maxTxns int) (History, *rand.Rand) {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
	return execute(rng, workload{
		txns:    rapid.IntRange(2, maxTxns).Draw(rt, "txns"),
		clients: rapid.IntRange(1, 30).Draw(rt, "clients"),
		maxOps:  rapid.IntRange(1, 6).Draw(rt, "maxOps"),
		keys:    rapid.IntRange(1, 40).Draw(rt, "keys"),
	}), rng
}

// TestSerialExecutionsPass: no false alarm, and the encoding loses nothing.
func TestSerialExecutionsPass(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h, _ := drawExecution(rt, 2000)
		r := Check(h, Options{})
		if !r.OK() {
			rt.Fatal(r)
		}
		data, err := EncodeHistory(h)
		if err != nil {
			rt.Fatal(err)
		}
		decoded, err := DecodeHistory(data)
		if err != nil {
			rt.Fatal(err)
		}
		if again := Check(decoded, Options{}); again.String() != r.String() {
			rt.Fatalf("after a round trip: %v, before: %v", again, r)
		}
	})
}

// BenchmarkCheck checks histories of about 200,000 operations: a right one, with and without scans, and wrong ones which
// make the search for cycles work hard.
func BenchmarkCheck(b *testing.B) {
	lists := workload{txns: 80_000, clients: 64, maxOps: 4, keys: 20_000, window: 100, plain: true}
	mixed := lists
	mixed.plain = false
	run := func(wl workload) History { return execute(rand.New(rand.NewPCG(1, 0)), wl) }
	for _, bc := range []struct {
		name string
		good bool
		make func() History
	}{
		{"lists", true, func() History { return run(lists) }},
		{"mixed", true, func() History { return run(mixed) }},
		{"stale", false, func() History {
			h := run(lists)
			mutations()[1].apply(rand.New(rand.NewPCG(9, 0)), h)
			return h
		}},
		{"clocks", false, func() History { // the real-time order is arbitrary: nearly everything is one component
			h, rng := run(lists), rand.New(rand.NewPCG(9, 0))
			for i := range h[:len(h)-1] {
				at := rng.Int64N(h[len(h)-1].Call)
				h[i].Call, h[i].Return = at, at+1
			}
			return h
		}},
		{"ring", false, func() History { // one write skew of 100,000 transactions: no cycle is short
			h := make(History, 100_000)
			for i := range int64(len(h)) {
				h[i] = whenever(int(i), read(keyName(i)), appendTo(keyName((i+1)%int64(len(h))), 1))
			}
			return h
		}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			h := bc.make()
			var r Report
			b.ReportAllocs()
			for b.Loop() {
				r = Check(h, Options{})
			}
			if r.OK() != bc.good {
				b.Fatal(r)
			}
			b.ReportMetric(float64(r.Ops), "ops")
			b.ReportMetric(float64(r.Edges), "edges")
		})
	}
}
