package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/check"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

// TestStrictSerializability runs at least 100,000 operations of mixed
// transactions and gives the history to the checker: functions with and
// without declared keys, parallel steps, scans, adds, aborts, deadlines, and
// lists of operations.
func TestStrictSerializability(t *testing.T) {
	operations := 110_000
	if testing.Short() {
		operations = 20_000
	}
	if report := runHistory(t, newBed(t, worker.Options{}, players()), operations); len(report.Anomalies) > 0 {
		t.Errorf("the history is not strictly serializable:\n%v", report)
	}
}

// TestPlantedBugIsFound runs with the build tag "plant": the bug that
// TENURE_PLANT names is active and the checker must find it.
func TestPlantedBugIsFound(t *testing.T) {
	bug := plant.Bug(os.Getenv("TENURE_PLANT"))
	if bug == "" || !plant.Is(bug) {
		t.Log("no bug is planted in this build; make plant plants each of them")
		return
	}
	for round := range 20 {
		if report := runHistory(t, newBed(t, worker.Options{}, players()), 20_000); len(report.Anomalies) > 0 {
			t.Logf("%s: found after %d histories: %v", bug, round+1, report.Anomalies[0])
			return
		}
	}
	t.Errorf("%s: not found in 20 histories", bug)
}

// script is one transaction as the generator drew it.
type script struct {
	A     []step `json:"a"`
	B     []step `json:"b,omitempty"` // of a second, parallel step
	Reads []string
	Write []string
	Abort bool `json:"abort,omitempty"`
}

// step is one operation of a script.
type step struct {
	Kind    check.OpKind `json:"k"`
	Key     string       `json:"key"` // the prefix of a scan
	Element int64        `json:"e,omitempty"`
}

// played is what a step returned.
type played struct {
	List  json.RawMessage   `json:"l,omitempty"`
	Value int64             `json:"v,omitempty"`
	Keys  []string          `json:"ks,omitempty"`
	Lists []json.RawMessage `json:"ls,omitempty"`
}

// play runs steps inside a function.
func play(h runtime.Host, steps []step) ([]played, error) {
	out := make([]played, len(steps))
	for i, s := range steps {
		var err error
		switch s.Kind {
		case check.Read:
			out[i].List, _, err = h.Get("t", s.Key)
		case check.Append:
			var v []byte
			if v, _, err = h.Get("t", s.Key); err == nil {
				err = h.Put("t", s.Key, withElement(v, s.Element))
			}
		case check.Add:
			err = h.Add("c", s.Key, s.Element)
		case check.ReadCounter:
			var v []byte
			v, _, err = h.Get("c", s.Key)
			out[i].Value = int64(number(v))
		case check.Scan:
			var entries []runtime.Entry
			entries, err = h.Scan("t", s.Key, 0)
			for _, e := range entries {
				out[i].Keys = append(out[i].Keys, e.Key)
				out[i].Lists = append(out[i].Lists, e.Value)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func withElement(list []byte, element int64) []byte {
	if len(list) == 0 {
		return fmt.Appendf(nil, "[%d]", element)
	}
	return fmt.Appendf(list[:len(list)-1:len(list)-1], ",%d]", element)
}

func player(pick func(*script) []step) func(runtime.Host, []byte) ([]byte, error) {
	return func(h runtime.Host, input []byte) ([]byte, error) {
		var s script
		if err := json.Unmarshal(input, &s); err != nil {
			return nil, err
		}
		out, err := play(h, pick(&s))
		if err != nil {
			return nil, err
		}
		if s.Abort {
			return nil, errors.New("drawn to abort")
		}
		return json.Marshal(out)
	}
}

// recorder draws transactions, runs them and records the history.
type recorder struct {
	*bed
	alone, declared, parallel *workflow.Workflow
	element                   atomic.Int64
	start                     time.Time
}

const (
	listKeys     = 12 // of one generation
	perGen       = 600
	counterKeys  = 3
	checkClients = 12
)

// players are the handlers of a bed on which runHistory plays.
func players() handlers {
	return handlers{
		"a": player(func(s *script) []step { return s.A }),
		"b": player(func(s *script) []step { return s.B }),
	}
}

func runHistory(t *testing.T, b *bed, operations int) check.Report {
	r := &recorder{
		bed: b, start: time.Now(), alone: workflow.Single("f", "a"),
		declared: b.flow("functions:\n  a: {function: f, reads: ['t/{Reads[*]}'], writes: ['t/{Write[*]}']}\noutput: a\n"),
		parallel: b.flow("functions:\n  a: {function: f}\n  b: {function: f}\n"),
	}
	var left atomic.Int64
	left.Store(int64(operations))
	histories := make([]check.History, checkClients)
	seed := rand.Uint64()
	var wg sync.WaitGroup
	for client := range checkClients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(client)))
			for left.Load() > 0 {
				txn := r.one(rng, client)
				txn.ID = client + checkClients*len(histories[client])
				histories[client] = append(histories[client], txn)
				left.Add(-int64(len(txn.Ops)))
			}
		})
	}
	wg.Wait()
	h := check.History{}
	for _, part := range histories {
		h = append(h, part...)
	}
	if b.calm != nil {
		b.calm()
	}
	h = append(h, r.readAll(len(h)*checkClients+checkClients))
	outcomes := map[check.Outcome]int{}
	total := 0
	for _, txn := range h {
		outcomes[txn.Outcome]++
		total += len(txn.Ops)
	}
	report := check.Check(h, check.Options{MaxPerKind: 3})
	t.Logf("seed %d: %d transactions (%d committed, %d failed, %d unknown), %d operations, %d anomalies",
		seed, len(h), outcomes[check.OK], outcomes[check.Failed], outcomes[check.Unknown], total, len(report.Anomalies))
	if len(report.Anomalies) > 0 {
		saveHistory(t, h)
	}
	return report
}

func saveHistory(t *testing.T, h check.History) {
	raw, err := check.EncodeHistory(h)
	if err == nil {
		err = os.WriteFile(filepath.Join(t.ArtifactDir(), "history.json"), raw, 0o600)
	}
	if err != nil {
		t.Errorf("save the history: %v", err)
	}
}

func (r *recorder) listKey(rng *rand.Rand) string {
	return fmt.Sprintf("g%d-%d", r.element.Load()/perGen, rng.IntN(listKeys))
}

// draw makes up one operation.
func (r *recorder) draw(rng *rand.Rand) step {
	switch n := rng.IntN(100); {
	case n < 40:
		return step{Kind: check.Append, Key: r.listKey(rng), Element: r.element.Add(1)}
	case n < 75:
		return step{Kind: check.Read, Key: r.listKey(rng)}
	case n < 85:
		return step{Kind: check.Add, Key: "c" + strconv.Itoa(rng.IntN(counterKeys)), Element: int64(rng.IntN(9) + 1)}
	case n < 92:
		return step{Kind: check.ReadCounter, Key: "c" + strconv.Itoa(rng.IntN(counterKeys))}
	default:
		return step{Kind: check.Scan, Key: fmt.Sprintf("g%d-", r.element.Load()/perGen)}
	}
}

func (r *recorder) steps(rng *rand.Rand) []step {
	s := make([]step, 1+rng.IntN(4))
	for i := range s {
		s[i] = r.draw(rng)
	}
	return s
}

// one draws a transaction, runs it and records it.
func (r *recorder) one(rng *rand.Rand, client int) check.Txn {
	txn := check.Txn{Client: client, Outcome: check.OK}
	var s script
	s.A = r.steps(rng)
	var reply worker.Reply
	var change []func(*worker.Request)
	if rng.IntN(40) == 0 {
		change = append(change, within(time.Duration(rng.IntN(2000))*time.Microsecond))
	}
	if rng.IntN(20) == 0 {
		change = append(change, idempotent(strconv.FormatInt(r.element.Add(1), 10), "x"))
	}
	s.Abort = rng.IntN(15) == 0
	flow := r.alone
	switch rng.IntN(10) {
	case 0, 1, 2: // a list of operations
		return r.oneOps(txn, s.A)
	case 3, 4, 5:
		flow = r.declared
		s.Reads, s.Write = []string{}, []string{}
		for _, st := range s.A {
			switch st.Kind {
			case check.Read:
				s.Reads = append(s.Reads, st.Key)
			case check.Append:
				s.Write = append(s.Write, st.Key)
			default:
			}
		}
	case 6:
		flow = r.parallel
		s.B = r.steps(rng)
	}
	input, err := json.Marshal(s)
	if err != nil {
		r.t.Error(err)
	}
	txn.Call = time.Since(r.start).Nanoseconds()
	reply = r.invoke(flow, string(input), change...)
	txn.Return = time.Since(r.start).Nanoseconds()
	txn.Outcome = r.outcome(reply)
	outputs := []json.RawMessage{reply.Output}
	if flow == r.parallel {
		var both struct{ A, B json.RawMessage }
		if reply.Err == nil {
			if err := json.Unmarshal(reply.Output, &both); err != nil {
				r.t.Errorf("output %s: %v", reply.Output, err)
			}
		}
		outputs = []json.RawMessage{both.A, both.B}
	}
	for i, steps := range [][]step{s.A, s.B} {
		var seen []played
		if txn.Outcome == check.OK && steps != nil {
			if err := json.Unmarshal(outputs[i], &seen); err != nil {
				r.t.Errorf("output %s: %v", outputs[i], err)
			}
		}
		txn.Ops = r.appendOps(txn.Ops, steps, seen)
	}
	return txn
}

func (r *recorder) outcome(reply worker.Reply) check.Outcome {
	switch {
	case reply.Err == nil:
		return check.OK
	case reply.Err.Unknown:
		return check.Unknown
	case reply.Err.Kind == base.Aborted || reply.Err.Kind == base.Timeout || reply.Err.Kind == base.Conflict:
		return check.Failed
	case reply.Err.Kind == base.Unavailable && r.pick != nil: // of a worker that was evicted
		return check.Failed
	default:
		r.t.Errorf("unexpected error: %v", reply.Err)
		return check.Unknown
	}
}

// appendOps records steps with what they saw, if that is known.
func (r *recorder) appendOps(ops []check.Op, steps []step, seen []played) []check.Op {
	for i, s := range steps {
		op := check.Op{Kind: s.Kind, Key: s.Key, Element: s.Element}
		var p played
		if seen != nil {
			p = seen[i]
		}
		switch s.Kind {
		case check.Read:
			op.List = r.list(p.List)
		case check.Add:
			op.Element, op.Delta = 0, s.Element
		case check.ReadCounter:
			op.Value = p.Value
		case check.Scan:
			op.Key, op.Prefix = "", s.Key
			for j, k := range p.Keys {
				op.Found = append(op.Found, check.Found{Key: k, List: r.list(p.Lists[j])})
			}
		case check.Append:
		}
		ops = append(ops, op)
	}
	return ops
}

func (r *recorder) list(raw []byte) (list []int64) {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		r.t.Errorf("list %s: %v", raw, err)
	}
	return list
}

// oneOps runs steps as a list of operations; scans become reads.
func (r *recorder) oneOps(txn check.Txn, steps []step) check.Txn {
	ops := make([]worker.Op, len(steps))
	for i := range steps {
		s := &steps[i]
		if s.Kind == check.Scan {
			s.Kind, s.Key = check.Read, s.Key+"0"
		}
		ops[i] = worker.Op{Key: key(s.Key)}
		switch s.Kind {
		case check.Append:
			ops[i].Kind, ops[i].Value = worker.OpAppend, strconv.AppendInt(nil, s.Element, 10)
		case check.Add:
			ops[i].Kind, ops[i].Value, ops[i].Key.Table = worker.OpAdd, strconv.AppendInt(nil, s.Element, 10), "c"
		case check.ReadCounter:
			ops[i].Kind, ops[i].Key.Table = worker.OpGet, "c"
		default:
			ops[i].Kind = worker.OpGet
		}
	}
	txn.Call = time.Since(r.start).Nanoseconds()
	reply := r.ops(ops...)
	txn.Return = time.Since(r.start).Nanoseconds()
	txn.Outcome = r.outcome(reply)
	seen := make([]played, len(steps))
	for i := range reply.Results {
		seen[i] = played{List: reply.Results[i].Value, Value: int64(number(reply.Results[i].Value))}
	}
	txn.Ops = r.appendOps(nil, steps, seen)
	return txn
}

// readAll is the last transaction: it sees every key, so that no lost append
// stays unseen.
func (r *recorder) readAll(id int) check.Txn {
	var steps []step
	var ops []worker.Op
	add := func(kind check.OpKind, k base.Key) {
		steps = append(steps, step{Kind: kind, Key: k.Key})
		ops = append(ops, worker.Op{Kind: worker.OpGet, Key: k})
	}
	for gen := range r.element.Load()/perGen + 1 {
		for i := range listKeys {
			add(check.Read, key(fmt.Sprintf("g%d-%d", gen, i)))
		}
	}
	for i := range counterKeys {
		add(check.ReadCounter, base.Key{Table: "c", Key: "c" + strconv.Itoa(i)})
	}
	txn := check.Txn{ID: id, Call: time.Since(r.start).Nanoseconds(), Outcome: check.OK}
	// Its time is its own: that of the others is short where workers are evicted.
	reply := r.worker().Execute(context.Background(), &worker.Request{ID: newID(), Name: "txn", Ops: ops, Deadline: time.Now().Add(time.Minute)})
	txn.Return = time.Since(r.start).Nanoseconds()
	if reply.Err != nil {
		r.t.Fatalf("read everything: %v", reply.Err)
	}
	seen := make([]played, len(steps))
	for i, res := range reply.Results {
		seen[i] = played{List: res.Value, Value: int64(number(res.Value))}
		if steps[i].Kind == check.Read && strings.HasPrefix(steps[i].Key, "c") {
			r.t.Fatal("a counter among the lists")
		}
	}
	txn.Ops = r.appendOps(nil, steps, seen)
	return txn
}
