package check

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// spot is one external read of an acknowledged transaction: its first operation on the key, with a non-empty result.
type spot struct{ txn, op int }

func spots(h History, good func(t *Txn, list []int64) bool) (out []spot) {
	for i := range h {
		seen := map[string]bool{}
		for j, op := range h[i].Ops {
			if op.Kind == Read && h[i].Outcome == OK && !seen[op.Key] && len(op.List) > 0 && good(&h[i], op.List) {
				out = append(out, spot{i, j})
			}
			seen[op.Key] = true
			if op.Kind == Scan {
				break // it may have touched the key
			}
		}
	}
	return out
}

// mutation spoils a history as a faulty service would.
type mutation struct {
	name string
	// sure mutations are always an anomaly; the others nearly always.
	sure bool
	// apply changes h and returns false if h has no place for it.
	apply func(rng *rand.Rand, h History) bool
}

func mutations() []mutation { return slices.Concat(readMutations(), historyMutations()) }

func anyRead(History) func(*Txn, []int64) bool { return func(*Txn, []int64) bool { return true } }

func longRead(History) func(*Txn, []int64) bool {
	return func(_ *Txn, list []int64) bool { return len(list) > 2 }
}

// settledRead is one that ends in an append which was acknowledged before the reader was called.
func settledRead(h History) func(*Txn, []int64) bool {
	w := writers(h)
	return func(t *Txn, list []int64) bool { return w[list[len(list)-1]].end() < t.Call }
}

// writers returns who appended each element; the executor's elements are unique over all keys.
func writers(h History) map[int64]*Txn {
	m := map[int64]*Txn{}
	for i := range h {
		for _, op := range h[i].Ops {
			if op.Kind == Append {
				m[op.Element] = &h[i]
			}
		}
	}
	return m
}

// onRead makes a mutation that changes the result of one read.
func onRead(good func(History) func(*Txn, []int64) bool, change func(rng *rand.Rand, op *Op)) func(*rand.Rand, History) bool {
	return func(rng *rand.Rand, h History) bool {
		places := spots(h, good(h))
		if len(places) == 0 {
			return false
		}
		p := places[rng.IntN(len(places))]
		op := &h[p.txn].Ops[p.op]
		op.List = slices.Clone(op.List)
		change(rng, op)
		return true
	}
}

func readMutations() []mutation {
	return []mutation{
		{"stale read", true, onRead(settledRead, func(_ *rand.Rand, op *Op) { op.List = op.List[:len(op.List)-1] })},
		{"absent read", true, onRead(settledRead, func(_ *rand.Rand, op *Op) { op.List = nil })},
		{"duplicate", true, onRead(anyRead, func(rng *rand.Rand, op *Op) {
			op.List = append(op.List, op.List[rng.IntN(len(op.List))])
		})},
		{"garbage", true, onRead(anyRead, func(rng *rand.Rand, op *Op) {
			op.List = slices.Insert(op.List, rng.IntN(len(op.List)+1), -1)
		})},
		{"element dropped", false, onRead(longRead, func(rng *rand.Rand, op *Op) {
			op.List = slices.Delete(op.List, 0, 1+rng.IntN(len(op.List)-1))
		})},
		{"elements swapped", false, onRead(longRead, func(rng *rand.Rand, op *Op) {
			i := rng.IntN(len(op.List) - 1)
			op.List[i], op.List[i+1] = op.List[i+1], op.List[i]
		})},
		{"older prefix", false, onRead(longRead, func(rng *rand.Rand, op *Op) {
			op.List = op.List[:rng.IntN(len(op.List))]
		})},
	}
}

func historyMutations() []mutation {
	return []mutation{
		{"future read", true, readFuture},
		{"aborted read", true, abortWriter},
		{"lost append", true, loseAppend},
		{"wild counter", true, func(rng *rand.Rand, h History) bool {
			for _, i := range rng.Perm(len(h)) {
				for j := range h[i].Ops {
					if op := &h[i].Ops[j]; op.Kind == ReadCounter && h[i].Outcome == OK {
						op.Value += 1_000_000
						return true
					}
				}
			}
			return false
		}},
		{"interval moved back", false, func(rng *rand.Rand, h History) bool {
			t := &h[len(h)/2+rng.IntN(len(h)/2)]
			t.Call, t.Return = 0, 1
			return t.Outcome == OK
		}},
	}
}

// readFuture lets a read return an element whose transaction was called after the reader returned.
func readFuture(rng *rand.Rand, h History) bool {
	w, final := writers(h), &h[len(h)-1] // which reads everything
	places := spots(h, anyRead(h))
	rng.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	for _, p := range places {
		op := &h[p.txn].Ops[p.op]
		for _, all := range final.lists(op.Key) {
			if w[all[len(all)-1]].Call > h[p.txn].Return {
				op.List = all
				return true
			}
		}
	}
	return false
}

// abortWriter declares a transaction failed that another one read from.
func abortWriter(rng *rand.Rand, h History) bool {
	w := writers(h)
	places := spots(h, func(t *Txn, list []int64) bool { return w[list[0]] != t })
	if len(places) == 0 {
		return false
	}
	p := places[rng.IntN(len(places))]
	w[h[p.txn].Ops[p.op].List[0]].Outcome = Failed
	return true
}

// loseAppend takes an acknowledged append away from every read. The final one, which is after all others, gives it away.
func loseAppend(rng *rand.Rand, h History) bool {
	w, final := writers(h), &h[len(h)-1]
	if len(final.Ops) == 0 {
		return false
	}
	all := final.Ops[rng.IntN(len(final.Ops))].List
	acknowledged := slices.DeleteFunc(slices.Clone(all), func(e int64) bool { return w[e].Outcome != OK })
	if len(acknowledged) == 0 {
		return false
	}
	lost := acknowledged[rng.IntN(len(acknowledged))]
	without := func(list []int64) []int64 {
		return slices.DeleteFunc(slices.Clone(list), func(e int64) bool { return e == lost })
	}
	for i := range h {
		for j := range h[i].Ops {
			op := &h[i].Ops[j]
			op.List = without(op.List)
			for f := range op.Found {
				op.Found[f].List = without(op.Found[f].List)
			}
		}
	}
	return true
}

// TestSureMutationsAreCaught spoils a good execution in ways that leave no doubt.
func TestSureMutationsAreCaught(t *testing.T) {
	for _, m := range mutations() {
		if !m.sure {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			applied := 0
			rapid.Check(t, func(rt *rapid.T) {
				h, rng := drawExecution(rt, 300)
				if !m.apply(rng, h) {
					return
				}
				applied++
				r := Check(h, Options{})
				if r.OK() {
					data, _ := EncodeHistory(h)
					rt.Fatalf("not caught:\n%s", data)
				}
				verifyEvidence(t, h, r)
			})
			if applied == 0 {
				t.Error("never applied")
			}
		})
	}
}

// TestMutationsAreMostlyCaught counts, with fixed seeds, how many of the other mutations are seen. The rest changes
// nothing that clients could tell: a read that is concurrent with what it now misses.
func TestMutationsAreMostlyCaught(t *testing.T) {
	for _, m := range mutations() {
		applied, caught := 0, 0
		for seed := range uint64(40) {
			rng := rand.New(rand.NewPCG(seed, 0))
			h := execute(rng, workload{txns: 300, clients: 1 + int(seed%20), maxOps: 4, keys: 10})
			if !m.apply(rng, h) {
				continue
			}
			applied++
			r := Check(h, Options{})
			if !r.OK() {
				caught++
			}
			verifyEvidence(t, h, r)
			if again := Check(h, Options{}); again.String() != r.String() {
				t.Fatalf("%s, seed %d: two checks of one history differ:\n%v\n%v", m.name, seed, r, again)
			}
		}
		t.Logf("%-20s %d of %d", m.name, caught, applied)
		if applied < 20 || caught*100 < applied*90 || m.sure && caught < applied {
			t.Errorf("%s: caught %d of %d", m.name, caught, applied)
		}
	}
}
