package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/txn"
	"github.com/tenure-faas/tenure/workflow"
)

// invocation is one invocation in progress and, in turn, each of its attempts.
// It is pooled; its memory is reused.
type invocation struct {
	w   *Worker
	req *Request
	ctx context.Context

	started  time.Time
	attempts int
	// foot is what the next attempt takes in order: the declared keys and all
	// that earlier attempts touched. edges order parallel steps that conflicted.
	foot  txn.Footprint
	uses  []workflow.KeyUse
	edges []workflow.Edge

	// idem is the idempotency key, nil if there is none; replay is the outcome that
	// was found under it.
	idem   *idempotency
	replay *Reply
	turns  turns
	gates  []gateUse // scratch

	// mu guards all below while steps run in parallel.
	mu sync.Mutex
	// set is the read and write set of this attempt.
	set txn.Set
	// written counts the bytes of values in the set.
	written int
	// now is the time that functions see in this attempt.
	now time.Time
	// over ends the attempt: every further access is refused. repeat says that
	// it is to be tried again; otherwise fail says why it ended.
	over   bool
	repeat bool
	fail   *base.Error
	// dirty is the newest batch that wrote a value this invocation has read,
	// in any attempt.
	dirty base.Number

	// scans are the ranges that steps have scanned, for the order of parallel
	// steps.
	scans []scanUse

	outputs [][]byte
	hosts   []host
	sched   workflow.Schedule
	results []OpResult
	// answer is the output of the committed attempt.
	answer []byte
	key    []byte // scratch for store keys
	val    []byte // scratch for stored values
	woken  []*txn.Lock
	passed []*txn.Pass
}

// prepare computes the declared footprint. It does not block.
func (inv *invocation) prepare() error {
	if inv.req.Flow == nil {
		for i := range inv.req.Ops {
			op := &inv.req.Ops[i]
			if err := op.Key.Validate(); err != nil {
				return err
			}
			mode := txn.Exclusive
			if op.Kind == OpGet {
				mode = txn.Shared
			}
			inv.foot.Want(op.Key, mode)
		}
		return nil
	}
	uses := inv.req.Keys
	if uses == nil {
		var err error
		uses, err = inv.req.Flow.DeclaredKeys(inv.uses[:0], inv.req.Input)
		inv.uses = uses
		if err != nil {
			return err
		}
	}
	for _, u := range uses {
		mode := txn.Shared
		if u.Write {
			mode = txn.Exclusive
		}
		inv.foot.Want(u.Key, mode)
	}
	return nil
}

// begin starts an attempt: it takes the footprint in the global order, gates
// first. It blocks until it has everything; the error is a Timeout.
func (inv *invocation) begin() *base.Error {
	inv.attempts++
	inv.over, inv.repeat, inv.fail, inv.written = false, false, nil, 0
	inv.scans = inv.scans[:0]
	inv.now = time.Now()
	inv.foot.Sort()
	inv.foot.Gates(&inv.set)
	if !inv.takeGates() {
		return inv.outOfTime()
	}
	for _, p := range inv.set.Passes {
		if !inv.enterGate(p, true) {
			return inv.timeout()
		}
	}
	if !inv.takeKeys() {
		return inv.outOfTime()
	}
	return nil
}

// timeout is the error of an invocation whose deadline passed before it
// committed.
func (inv *invocation) timeout() *base.Error {
	return base.Errorf(base.Timeout, "the deadline passed after %v: the outcome is unchanged (nothing was written)",
		time.Since(inv.started).Round(time.Millisecond))
}

// enterGate passes the gate of a table, waiting if wait is set; false means
// that it had to wait and was not allowed to, or that ctx ended.
func (inv *invocation) enterGate(p *txn.Pass, wait bool) bool {
	gs := inv.w.gateShard(p.Table)
	gs.mu.Lock()
	status := gs.gate(p.Table).Enter(p, wait)
	gs.mu.Unlock()
	if status != txn.Queued {
		return status == txn.Granted
	}
	select {
	case <-p.Wake:
		return true
	case <-inv.ctx.Done():
	}
	gs.mu.Lock()
	woken, cancelled := gs.gate(p.Table).Cancel(p, inv.passed[:0])
	gs.mu.Unlock()
	inv.wakePasses(woken)
	if !cancelled {
		<-p.Wake // it was let in meanwhile: take the token, the pass is left with the rest
	}
	return false
}

func (inv *invocation) leaveGate(p *txn.Pass) {
	gs := inv.w.gateShard(p.Table)
	gs.mu.Lock()
	if !p.Inside() {
		gs.mu.Unlock()
		return
	}
	g := gs.gate(p.Table)
	woken := g.Leave(p, inv.passed[:0])
	if len(gs.gates) > gatesKept && g.Idle() {
		delete(gs.gates, p.Table)
	}
	gs.mu.Unlock()
	inv.wakePasses(woken)
}

func (inv *invocation) wakePasses(woken []*txn.Pass) {
	for _, p := range woken {
		p.Wake <- struct{}{} // capacity 1, one token for each time a pass is queued
	}
	clear(woken)
	inv.passed = woken[:0]
}

// lock acquires a.Lock; false as in enterGate. After false the access has no
// entry.
func (inv *invocation) lock(a *txn.Access, wait bool) bool {
	sh := inv.w.shard(a.Slot)
	sh.lock()
	status := sh.table.Acquire(&a.Lock, wait)
	sh.unlock()
	if status != txn.Queued {
		return status == txn.Granted
	}
	select {
	case <-a.Wake:
		return true
	case <-inv.ctx.Done():
	}
	sh.lock()
	woken, cancelled := sh.table.Cancel(&a.Lock, inv.woken[:0])
	sh.unlock()
	inv.wakeLocks(woken)
	if !cancelled {
		<-a.Wake // granted meanwhile: take the token, the lock is released with the rest
	}
	return false
}

func (inv *invocation) wakeLocks(woken []*txn.Lock) {
	for _, l := range woken {
		l.Wake <- struct{}{} // capacity 1, one token for each time a lock is queued
	}
	clear(woken)
	inv.woken = woken[:0]
}

// load makes sure that the access's entry has its value, and notes what the
// invocation then depends on.
func (inv *invocation) load(a *txn.Access) error {
	if a.Loaded {
		return nil
	}
	sh := inv.w.shard(a.Slot)
	for {
		sh.lock()
		loaded, dirty, era := a.Entry.Loaded, a.Entry.Dirty, a.Entry.Era
		if loaded {
			a.Note()
		}
		sh.unlock()
		if loaded {
			inv.dirty = max(inv.dirty, dirty)
			return nil
		}
		if inv.turns.lostIn(a.Slot) {
			return base.Errorf(base.Unavailable, "the copy of %v is gone with a change of view", a.Key) // nobody hears it: the attempt is repeated
		}
		if err := inv.fetch(sh, a, era); err != nil {
			return err
		}
	}
}

// fetch reads the value of the access's entry from the store. If the entry was
// forgotten meanwhile, because its slot came or went, that is not taken over.
func (inv *invocation) fetch(sh *shard, a *txn.Access, era uint32) error {
	inv.key = store.AppendDataKey(inv.key[:0], a.Key)
	raw, found, err := inv.w.engine.Get(nil, inv.key)
	if err != nil {
		return base.Errorf(base.Unavailable, "%v", err)
	}
	var version base.Version
	var value []byte
	var present bool
	if found {
		if version, value, present, err = store.DecodeDataValue(raw); err != nil {
			return base.Errorf(base.Internal, "key %v: %v", a.Key, err)
		}
	}
	dirty := inv.w.foreign()
	sh.lock()
	defer sh.unlock()
	if a.Entry.Era == era {
		sh.table.Fill(a.Entry, version, value, present, dirty)
	}
	return nil
}

// release gives back everything the attempt holds; written is its batch if it
// committed, and then the locks of written keys have been given back by now.
// With keepIdem the turn of the idempotency key stays: the record of a failure is
// kept under it.
func (inv *invocation) release(written base.Number, keepIdem bool) {
	for _, a := range inv.set.Accesses {
		if a.Entry == nil {
			continue
		}
		sh := inv.w.shard(a.Slot)
		sh.lock()
		woken := sh.table.Release(&a.Lock, inv.woken[:0])
		sh.unlock()
		inv.wakeLocks(woken)
	}
	for _, p := range inv.set.Passes {
		inv.leaveGate(p)
	}
	inv.set.Reset()
	if inv.w.leases != nil {
		inv.giveTurns(written, keepIdem)
	}
}

// access returns the set's entry for a key, with a lock that covers use, for
// one step. Called with inv.mu held. ErrAttemptOver means that the attempt has
// to be repeated or has ended.
func (inv *invocation) access(step int, k base.Key, use txn.Use) (*txn.Access, error) {
	if inv.over {
		return nil, runtime.ErrAttemptOver
	}
	a := inv.set.Find(k)
	if a == nil {
		if err := k.Validate(); err != nil {
			return nil, inv.broke(err)
		}
		if len(inv.set.Accesses) >= inv.w.opt.MaxKeys {
			return nil, inv.broke(base.Errorf(base.TooLarge, "more than %d keys in one transaction", inv.w.opt.MaxKeys))
		}
		if a = inv.acquire(k, use.Mode()); a == nil {
			return nil, runtime.ErrAttemptOver
		}
	} else if !inv.strengthen(a, use.Mode()) {
		return nil, runtime.ErrAttemptOver
	}
	if !inv.inOrder(a, step, use) {
		return nil, runtime.ErrAttemptOver
	}
	return a, nil
}

// acquire takes a lock that nobody declared. It waits only if that keeps the
// global order; nil means that the attempt is over.
func (inv *invocation) acquire(k base.Key, mode txn.Mode) *txn.Access {
	if mode != txn.Shared && !inv.passWrite(k) {
		inv.repeatWith(k, mode)
		return nil
	}
	wait := inv.set.InOrder(k)
	if !inv.takeTurn(k.Slot(), leaseMode(mode), wait) {
		inv.repeatWith(k, mode)
		return nil
	}
	a := inv.set.Insert(k, mode)
	if inv.lock(a, wait) {
		return a
	}
	inv.repeatWith(k, mode)
	return nil
}

// strengthen makes the lock on a known key cover mode; false means that the
// attempt is over.
func (inv *invocation) strengthen(a *txn.Access, mode txn.Mode) bool {
	if a.Mode.Covers(mode) {
		return true
	}
	if a.Mode == txn.Shared && !inv.passWrite(a.Key) {
		inv.repeatWith(a.Key, txn.Exclusive)
		return false
	}
	if !inv.takeTurn(a.Slot, leaseMode(mode), false) {
		inv.repeatWith(a.Key, txn.Exclusive)
		return false
	}
	sh := inv.w.shard(a.Slot)
	sh.lock()
	status := sh.table.Upgrade(&a.Lock, mode)
	sh.unlock()
	if status == txn.Granted {
		a.Loaded = false // under a weaker lock others may have added: note anew what we depend on
		return true
	}
	inv.repeatWith(a.Key, txn.Exclusive)
	return false
}

// passWrite makes sure that the attempt has passed the gate of the key's table
// with the key among its writes, without waiting.
func (inv *invocation) passWrite(k base.Key) bool {
	return inv.pass(k.Table, nil, k.Key)
}

// pass extends the attempt's pass of a table by a scanned prefix or a written
// key, without waiting.
func (inv *invocation) pass(table string, scan []string, write ...string) bool {
	if !inv.takeTurn(base.GateSlot(table), gateMode(scan), false) {
		return false
	}
	p := inv.set.Pass(table)
	gs := inv.w.gateShard(table)
	if p != nil {
		gs.mu.Lock()
		defer gs.mu.Unlock()
		return gs.gate(table).Extend(p, scan, write) == txn.Granted
	}
	p = inv.set.InsertPass(table)
	p.Scans = append(p.Scans, scan...)
	p.Writes = append(p.Writes, write...)
	if inv.enterGate(p, false) {
		return true
	}
	inv.set.RemovePass(p)
	return false
}

// repeatWith ends the attempt and lets the next one take the key in order. If
// the deadline has passed the attempt ends for good.
func (inv *invocation) repeatWith(k base.Key, mode txn.Mode) {
	inv.foot.Want(k, mode)
	inv.endAttempt()
}

func (inv *invocation) endAttempt() {
	inv.over = true
	if inv.ctx.Err() != nil {
		if inv.fail == nil {
			inv.fail = inv.timeout()
		}
		return
	}
	inv.repeat = true
}

// inOrder notes the use of a key by a step. If a step that may run in parallel
// has used it in conflict, the next attempt puts the two in the definition's
// order, and this one is over.
func (inv *invocation) inOrder(a *txn.Access, step int, use txn.Use) bool {
	flow := inv.req.Flow
	if flow == nil || flow.Linear {
		return true
	}
	before := inv.sched.Before(step)
	conflicting := workflow.StepSet(a.Mark(step, use, uint64(before)))
	if use != txn.Read {
		for _, s := range inv.scans {
			if s.covers(a.Key) {
				conflicting |= s.steps &^ (before | 1<<uint(step))
			}
		}
	}
	return inv.serialise(step, conflicting)
}

// scanUse is a range and the steps that scanned it.
type scanUse struct {
	txn.Range
	steps workflow.StepSet
}

func (s scanUse) covers(k base.Key) bool {
	return k.Table == s.Table && strings.HasPrefix(k.Key, s.Prefix)
}

// scanInOrder notes that step scans r, as inOrder does for a key.
func (inv *invocation) scanInOrder(r txn.Range, step int) bool {
	flow := inv.req.Flow
	if flow == nil || flow.Linear {
		return true
	}
	use := scanUse{r, 1 << uint(step)}
	var conflicting workflow.StepSet
	for _, a := range inv.set.Accesses {
		if use.covers(a.Key) {
			conflicting |= workflow.StepSet(a.Writers | a.Adders)
		}
	}
	inv.scans = append(inv.scans, use)
	return inv.serialise(step, conflicting&^(inv.sched.Before(step)|use.steps))
}

// serialise orders step and the conflicting steps for the next attempt; it
// returns true if there are none.
func (inv *invocation) serialise(step int, conflicting workflow.StepSet) bool {
	if conflicting == 0 {
		return true
	}
	for other := range conflicting.All() {
		inv.edges = append(inv.edges, workflow.Edge{From: min(step, other), To: max(step, other)})
	}
	inv.endAttempt()
	return false
}

// broke ends the invocation because the function broke a rule. The error goes
// to the function as well.
func (inv *invocation) broke(err error) error {
	if !inv.over {
		detail := err.Error()
		if e, ok := errors.AsType[*base.Error](err); ok {
			detail = e.Detail
		}
		inv.stop(base.Errorf(base.FunctionError, "the function broke a rule: %s", detail))
	}
	return err
}

// stop ends the attempt and the invocation with an error, unless the attempt
// has ended already.
func (inv *invocation) stop(err *base.Error) {
	if !inv.over {
		inv.over, inv.fail = true, err
	}
}
