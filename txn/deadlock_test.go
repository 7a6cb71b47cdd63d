package txn

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
)

// simOp is one thing that a simulated transaction does: use a key, or scan.
type simOp struct {
	key  base.Key
	use  Use
	scan *Range
}

func (o simOp) String() string {
	if o.scan != nil {
		return fmt.Sprintf("scan %s/%s*", o.scan.Table, o.scan.Prefix)
	}
	return fmt.Sprintf("%v %v", o.use.Mode(), o.key)
}

// simTxn is a transaction with its script. It behaves as the worker does
// (worker/attempt.go): it takes its footprint in order and waits for it; what
// it needs beyond that it waits for only if that keeps the order, and if it is
// refused the attempt begins again with a larger footprint.
type simTxn struct {
	sim      *sim
	script   []simOp
	foot     Footprint
	set      Set
	attempts int

	stage   simStage
	next    int // the gate, need or operation that comes next
	waiting bool
	done    bool
}

type simStage uint8

const (
	atStart simStage = iota
	atGates
	atNeeds
	atScript
)

// sim is a scheduler without threads: in each step one transaction that can
// run does one thing.
type sim struct {
	table   *Table
	gates   map[string]*Gate
	txns    []*simTxn
	locked  map[*Lock]*simTxn
	passing map[*Pass]*simTxn
	// disorder lets every request wait, whatever the order: the planted bug.
	disorder bool
}

func newSim(disorder bool, scripts [][]simOp, declared []int) *sim {
	s := &sim{table: NewTable(2000), gates: map[string]*Gate{}, locked: map[*Lock]*simTxn{}, passing: map[*Pass]*simTxn{}, disorder: disorder}
	for i, script := range scripts {
		x := &simTxn{sim: s, script: script}
		for _, op := range script[:declared[i]] {
			x.declare(op)
		}
		s.txns = append(s.txns, x)
	}
	return s
}

func (s *sim) gate(table string) *Gate {
	if s.gates[table] == nil {
		s.gates[table] = &Gate{}
	}
	return s.gates[table]
}

func (x *simTxn) declare(op simOp) {
	if op.scan != nil {
		x.foot.WantScan(*op.scan)
	} else {
		x.foot.Want(op.key, op.use.Mode())
	}
}

// step does the next thing of the transaction.
func (x *simTxn) step() {
	switch x.stage {
	case atStart:
		x.attempts++
		x.foot.Sort()
		x.foot.Gates(&x.set)
		x.stage, x.next = atGates, 0
	case atGates:
		if x.next == len(x.set.Passes) {
			x.stage, x.next = atNeeds, 0
			return
		}
		p := x.set.Passes[x.next]
		x.next++
		x.sim.passing[p] = x
		x.waiting = x.sim.gate(p.Table).Enter(p, true) == Queued
	case atNeeds:
		if x.next == len(x.foot.Needs) {
			x.stage, x.next = atScript, 0
			return
		}
		n := x.foot.Needs[x.next]
		x.next++
		x.lock(x.set.Insert(n.Key, n.Mode), true)
	case atScript:
		if x.next == len(x.script) {
			x.release()
			x.done = true
			return
		}
		op := x.script[x.next]
		x.next++
		if !x.perform(op) {
			x.foot.Learn(&x.set)
			x.declare(op)
			x.release()
			x.stage = atStart
		}
	}
}

// lock asks for a lock; false means refused, and the access has no lock then.
func (x *simTxn) lock(a *Access, wait bool) bool {
	x.sim.locked[&a.Lock] = x
	status := x.sim.table.Acquire(&a.Lock, wait)
	x.waiting = status == Queued
	return status != Refused
}

// perform runs one operation of the script; false means refused.
func (x *simTxn) perform(op simOp) bool {
	if r := op.scan; r != nil {
		p := x.set.Pass(r.Table)
		// An extension by what the pass has already would be refused if somebody
		// queues because of it, so the caller has to look first.
		covered := p != nil && slices.ContainsFunc(p.Scans, func(s string) bool { return strings.HasPrefix(r.Prefix, s) })
		return covered || x.pass(r.Table, []string{r.Prefix}, nil)
	}
	mode := op.use.Mode()
	a := x.set.Find(op.key)
	if a != nil && a.Mode.Covers(mode) {
		return true
	}
	if mode != Shared && (a == nil || a.Mode == Shared) && !x.pass(op.key.Table, nil, []string{op.key.Key}) {
		return false
	}
	if a != nil {
		return x.sim.table.Upgrade(&a.Lock, mode) == Granted
	}
	wait := x.set.InOrder(op.key) || x.sim.disorder
	return x.lock(x.set.Insert(op.key, mode), wait)
}

func (x *simTxn) pass(table string, scans, writes []string) bool {
	if p := x.set.Pass(table); p != nil {
		return x.sim.gate(table).Extend(p, scans, writes) == Granted
	}
	p := x.set.InsertPass(table)
	p.Scans, p.Writes = append(p.Scans, scans...), append(p.Writes, writes...)
	x.sim.passing[p] = x
	status := x.sim.gate(table).Enter(p, x.sim.disorder)
	x.waiting = status == Queued
	if status == Refused {
		x.set.RemovePass(p)
	}
	return status != Refused
}

// release gives everything back and lets those go on who are woken by it.
func (x *simTxn) release() {
	for _, a := range x.set.Accesses {
		if a.Entry == nil {
			continue // the request that was refused
		}
		for _, l := range x.sim.table.Release(&a.Lock, nil) {
			x.sim.locked[l].waiting = false
		}
	}
	for _, p := range x.set.Passes {
		for _, q := range x.sim.gate(p.Table).Leave(p, nil) {
			x.sim.passing[q].waiting = false
		}
	}
	x.set.Reset()
}

// run schedules until all are done. The error is a deadlock or no progress
// within limit steps.
func (s *sim) run(limit int, choose func(n int) int) error {
	for range limit {
		var ready []*simTxn
		unfinished := 0
		for _, x := range s.txns {
			if !x.done {
				unfinished++
				if !x.waiting {
					ready = append(ready, x)
				}
			}
		}
		switch {
		case unfinished == 0:
			return nil
		case len(ready) == 0:
			return fmt.Errorf("deadlock of %d transactions:\n%s", unfinished, s)
		}
		ready[choose(len(ready))].step()
	}
	return fmt.Errorf("not done after %d steps:\n%s", limit, s)
}

// String describes the scripts and where each transaction is.
func (s *sim) String() string {
	var b strings.Builder
	for i, x := range s.txns {
		fmt.Fprintf(&b, "T%d: %v, attempt %d, stage %d, at %d, waiting %v\n", i, x.script, x.attempts, x.stage, x.next, x.waiting)
	}
	return b.String()
}

func drawScript(t *rapid.T) []simOp {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) simOp {
		table := rapid.SampledFrom([]string{"p", "q"}).Draw(t, "table")
		if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
			return simOp{scan: &Range{table, rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "prefix")}}
		}
		key := rapid.SampledFrom([]string{"a1", "a2", "b1", "b2"}).Draw(t, "key")
		return simOp{key: base.Key{Table: table, Key: key}, use: Use(rapid.IntRange(0, 2).Draw(t, "use"))}
	}), 1, 8).Draw(t, "script")
}

// TestNoDeadlock runs random transactions to their end under random schedules.
// Every refusal puts its cause into the footprint, so the attempts of a
// transaction are bounded by its operations, and by that the steps.
func TestNoDeadlock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var scripts [][]simOp
		var declared []int
		limit := 0
		for range rapid.IntRange(2, 6).Draw(t, "transactions") {
			script := drawScript(t)
			scripts = append(scripts, script)
			declared = append(declared, rapid.IntRange(0, len(script)).Draw(t, "declared"))
			// Per attempt: the start, a gate for each table, a lock for each
			// operation, the operations themselves, and three changes of stage.
			limit += (len(script) + 1) * (2*len(script) + 6)
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "schedule"), 0))
		s := newSim(false, scripts, declared)
		if err := s.run(limit, rng.IntN); err != nil {
			t.Fatal(err)
		}
		for i, x := range s.txns {
			if most := len(x.script) - declared[i] + 1; x.attempts > most {
				t.Fatalf("T%d %v took %d attempts, at most %d expected", i, x.script, x.attempts, most)
			}
		}
		s.checkEmpty(t)
	})
}

// checkEmpty checks that nothing is held, queued or leaked when all are done.
func (s *sim) checkEmpty(t *rapid.T) {
	for _, e := range entriesOf(s.table) {
		if e.holders.n+e.waiters.n > 0 || !e.idle {
			t.Fatalf("%v has %d holders and %d waiters at the end, idle %v", e.Key, e.holders.n, e.waiters.n, e.idle)
		}
	}
	if s.table.Bytes() > s.table.budget {
		t.Fatalf("%d bytes at the end, the budget is %d", s.table.Bytes(), s.table.budget)
	}
	for name, g := range s.gates {
		if !g.Idle() {
			t.Fatalf("gate %s is not idle at the end", name)
		}
	}
}

// TestSimulationFindsDeadlock plants the bug that the order is there against:
// transactions that wait for anything at any time. The simulation must see it.
func TestSimulationFindsDeadlock(t *testing.T) {
	key := func(name string) base.Key { return base.Key{Table: "p", Key: name} }
	write := func(name string) simOp { return simOp{key: key(name), use: Write} }
	scripts := [][]simOp{{write("a1"), write("b1")}, {write("b1"), write("a1")}}
	const schedules = 50
	stuck := func(disorder bool) (n int) {
		for seed := range uint64(schedules) {
			s := newSim(disorder, scripts, []int{0, 0})
			if err := s.run(1000, rand.New(rand.NewPCG(seed, 0)).IntN); err != nil {
				n++
			}
		}
		return n
	}
	if n := stuck(true); n == 0 {
		t.Errorf("two transactions that cross did not deadlock in %d schedules", schedules)
	}
	if n := stuck(false); n != 0 {
		t.Errorf("%d of %d schedules deadlocked although waits are in order", n, schedules)
	}
}

// TestCompareIsATotalOrder checks what the proof rests on: of two different
// keys one is greater, for everybody.
func TestCompareIsATotalOrder(t *testing.T) {
	var keys []base.Key
	for i := range 200 {
		keys = append(keys, base.Key{Table: fmt.Sprint("t", i%3), Key: fmt.Sprint(i)})
	}
	slices.SortFunc(keys, base.Key.Compare)
	for i, a := range keys {
		for j, b := range keys {
			if got := a.Compare(b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Fatalf("%v at %d and %v at %d compare as %d", a, i, b, j, got)
			}
		}
	}
}
