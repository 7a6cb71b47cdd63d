package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

func keyName(i int64) string { return fmt.Sprintf("k%05d", i) }

// explainable tries every serial order that real time allows, with and without each unknown transaction: the definition
// of strict serializability, at factorial cost.
func explainable(h History) bool {
	return place(h, make([]bool, len(h)), map[string][]int64{})
}

// place puts some transaction next in the serial order, after those that are done. State is the database after them.
func place(h History, done []bool, state map[string][]int64) bool {
	finished := true
	for i := range h {
		if done[i] || h[i].Outcome == Failed {
			continue
		}
		finished = finished && h[i].Outcome == Unknown // which may also be left out
		mayBeNext := true
		for j := range h {
			mayBeNext = mayBeNext && (done[j] || h[j].Outcome != OK || h[j].Return >= h[i].Call)
		}
		if !mayBeNext {
			continue
		}
		if next, ok := apply(state, &h[i]); ok {
			done[i] = true
			if place(h, done, next) {
				return true
			}
			done[i] = false
		}
	}
	return finished
}

// apply runs t on a copy of the state; ok is false if a read of t returned something else than the state holds.
func apply(state map[string][]int64, t *Txn) (next map[string][]int64, ok bool) {
	next = make(map[string][]int64, len(state)+1)
	for k, list := range state {
		next[k] = list
	}
	for _, op := range t.Ops {
		switch {
		case op.Kind == Append:
			next[op.Key] = append(slices.Clip(next[op.Key]), op.Element)
		case t.Outcome != OK:
		case op.Kind == Read:
			if !slices.Equal(next[op.Key], op.List) {
				return nil, false
			}
		case op.Kind == Scan:
			n := 0
			for k := range next {
				claimed := !op.Truncated || len(op.Found) > 0 && k <= op.Found[len(op.Found)-1].Key
				if claimed && strings.HasPrefix(k, op.Prefix) {
					n++
				}
			}
			for _, f := range op.Found {
				if !slices.Equal(next[f.Key], f.List) {
					return nil, false
				}
			}
			if n != len(op.Found) {
				return nil, false
			}
		}
	}
	return next, true
}

// doubt says what doubtful makes.
type doubt struct {
	txns, maxOps, keys int
	noise              int // percent of transactions that read at a wrong time
}

// doubtful makes a small history of which it is open whether it is strictly serializable: its reads mostly see the
// state at one point of the interval, and sometimes an older or a newer one.
func doubtful(rng *rand.Rand, d doubt) History {
	h := make(History, d.txns)
	points := make([]int64, d.txns)
	for i := range h {
		t := &h[i]
		*t = Txn{ID: i + 1, Client: i, Call: rng.Int64N(60), Outcome: OK}
		points[i] = t.Call + rng.Int64N(12)
		t.Return = points[i] + rng.Int64N(12)
		switch rng.IntN(12) {
		case 0:
			t.Outcome = Failed
		case 1, 2:
			t.Outcome = Unknown
		}
		for range 1 + rng.IntN(d.maxOps) {
			op := Op{Kind: Append, Key: fmt.Sprintf("%c", 'a'+rng.IntN(d.keys)), Element: rng.Int64()}
			switch p := rng.IntN(20); {
			case p < 10:
				op = Op{Kind: Read, Key: op.Key}
			case p < 13:
				op = Op{Kind: Scan, Truncated: p == 10}
			}
			t.Ops = append(t.Ops, op)
		}
	}
	versions := versionsOf(rng, h, points)
	for i := range h {
		at := points[i] * substeps
		if rng.IntN(100) < d.noise {
			at += rng.Int64N(60*substeps) - 30*substeps
		}
		fillReads(&h[i], d.keys, func(key string) (list []int64) {
			if rng.IntN(400) < d.noise { // from this read on
				at += rng.Int64N(30*substeps) - 15*substeps
			}
			for _, v := range versions[key] {
				if v.at < at {
					list = v.list
				}
			}
			return list
		})
	}
	return h
}

// substeps divides a unit of time, so that a read at a wrong time can also meet a transaction half done.
const substeps = 8

type version struct {
	at   int64 // in 1/substeps
	list []int64
}

// versionsOf applies the appends at their points; of the unknown transactions about half.
func versionsOf(rng *rand.Rand, h History, points []int64) map[string][]version {
	serial := make([]int, len(h))
	for i := range serial {
		serial[i] = i
	}
	slices.SortStableFunc(serial, func(i, j int) int { return int(points[i] - points[j]) })
	versions := map[string][]version{}
	for _, i := range serial {
		if h[i].Outcome == Failed || h[i].Outcome == Unknown && rng.IntN(2) == 0 {
			continue
		}
		for j, op := range h[i].Ops {
			if op.Kind != Append {
				continue
			}
			var list []int64
			if vs := versions[op.Key]; len(vs) > 0 {
				list = slices.Clone(vs[len(vs)-1].list)
			}
			versions[op.Key] = append(versions[op.Key], version{points[i]*substeps + int64(j), append(list, op.Element)})
		}
	}
	return versions
}

// fillReads gives the reads and scans of t what state says, without t's own appends from it but with those made so far.
func fillReads(t *Txn, keys int, state func(key string) []int64) {
	own := map[string][]int64{}
	view := func(key string) []int64 {
		list := slices.DeleteFunc(slices.Clone(state(key)), func(e int64) bool { return t.appends(key, e) })
		return append(list, own[key]...)
	}
	for j := range t.Ops {
		op := &t.Ops[j]
		switch op.Kind {
		case Append:
			own[op.Key] = append(own[op.Key], op.Element)
		case Read:
			op.List = view(op.Key)
		case Scan:
			for k := range keys {
				key := fmt.Sprintf("%c", 'a'+k)
				if list := view(key); len(list) > 0 {
					op.Found = append(op.Found, Found{key, list})
				}
			}
			if op.Truncated && len(op.Found) > 0 {
				op.Found = op.Found[:len(op.Found)-1]
			}
		}
	}
}

// TestAgreesWithExhaustiveSearch: on lists the check is exact. An anomaly is reported if and only if no serial order
// within real time explains the history.
func TestAgreesWithExhaustiveSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	good, bad := 0, map[Kind]int{}
	for range 60_000 {
		h := doubtful(rng, doubt{txns: 2 + rng.IntN(6), maxOps: 3, keys: 2 + rng.IntN(4), noise: 50})
		r := Check(h, Options{})
		if want := explainable(h); r.OK() != want {
			data, _ := EncodeHistory(h)
			t.Fatalf("explainable is %v, but: %v\n%s", want, r, data)
		}
		verifyEvidence(t, h, r)
		if r.OK() {
			good++
		} else {
			bad[r.Anomalies[0].Kind]++
		}
	}
	t.Logf("good %d, bad %v", good, bad)
	if good < 2000 {
		t.Errorf("only %d good histories: the comparison says little", good)
	}
	for _, k := range []Kind{Internal, G1b, IncompatibleOrder, G1c, GSingle, G2, G0RealTime, G1cRealTime, GSingleRealTime, G2RealTime} {
		if bad[k] == 0 {
			t.Errorf("no history with %v: the comparison says nothing about it", k)
		}
	}
}

// TestAgreesWithPorcupine compares with an independent checker: for single operations on one key strict
// serializability is linearizability.
func TestAgreesWithPorcupine(t *testing.T) {
	model := porcupine.Model{
		Init: func() any { return []int64(nil) },
		Step: func(state, input, output any) (bool, any) {
			list, op := state.([]int64), input.(Op)
			if op.Kind == Append {
				return true, append(slices.Clip(list), op.Element)
			}
			return output == nil || slices.Equal(list, output.([]int64)), list
		},
		Equal: func(x, y any) bool { return slices.Equal(x.([]int64), y.([]int64)) },
	}
	rng := rand.New(rand.NewPCG(2, 0))
	good, bad := 0, 0
	for range 3000 {
		h := slices.DeleteFunc(doubtful(rng, doubt{txns: 2 + rng.IntN(12), maxOps: 1, keys: 1, noise: 80}), func(t Txn) bool { return t.Ops[0].Kind == Scan })
		var ops []porcupine.Operation
		for i := range h {
			p := porcupine.Operation{ClientId: i, Input: h[i].Ops[0], Call: h[i].Call, Return: h[i].end()}
			switch h[i].Outcome {
			case Failed:
				continue
			case OK:
				p.Output = h[i].Ops[0].List
			}
			ops = append(ops, p)
		}
		r := Check(h, Options{})
		if want := porcupine.CheckOperations(model, ops); r.OK() != want {
			data, _ := EncodeHistory(h)
			t.Fatalf("porcupine says %v, but: %v\n%s", want, r, data)
		}
		if r.OK() {
			good++
		} else {
			bad++
		}
	}
	t.Logf("good %d, bad %d", good, bad)
	if good < 500 || bad < 500 {
		t.Errorf("%d good and %d bad histories: the comparison says little", good, bad)
	}
}

// TestBarriersAreRealTime: the auxiliary nodes connect two transactions exactly if one returned before the other was
// called.
func TestBarriersAreRealTime(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 0))
	for range 300 {
		h := make(History, 1+rng.IntN(12))
		for i := range h {
			h[i] = txn(i, rng.Int64N(20), 0)
			h[i].Return = h[i].Call + rng.Int64N(6)
			if rng.IntN(5) == 0 {
				h[i] = unknown(h[i])
			}
		}
		a := &analysis{h: h, committed: slices.Repeat([]bool{true}, len(h))}
		g := &graph{txns: len(h), nodes: len(h)}
		a.connectRealTime(g)
		g.freeze()
		if limit := 3 * len(h); len(g.edges) > limit {
			t.Fatalf("%d edges for %d transactions, want at most %d", len(g.edges), len(h), limit)
		}
		for i := range h {
			reached := make([]bool, g.nodes)
			for todo := []int32{int32(i)}; len(todo) > 0; todo = todo[1:] {
				for _, e := range g.edges[g.first[todo[0]]:g.first[todo[0]+1]] {
					if !reached[e.to] {
						reached[e.to] = true
						todo = append(todo, e.to)
					}
				}
			}
			for j := range h {
				if want := h[i].end() < h[j].Call; reached[j] != want {
					t.Fatalf("T%d reaches T%d: %v, want %v; %+v", i, j, reached[j], want, h)
				}
			}
		}
	}
}
