package worker

import (
	"strconv"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/txn"
)

// commit gives the attempt's effects, the invocation's record and, if there is
// one, its idempotency record their place in the log, as one batch, and
// releases every lock and gate. It does not wait for the disk: reply does.
//
// Exclusive locks keep values and versions still, so batches are prepared and
// appended side by side. Only additive effects need an order: their
// transactions pass the commit section one by one, where they are added to the
// newest values, appended, and the entries brought up to date before the next
// one looks at them. After the append nothing can fail any more.
func (inv *invocation) commit(idem *idempotency) (*base.Error, base.Number) {
	w := inv.w
	if err := inv.settleEffects(); err != nil {
		if inv.repeat = inv.turns.lost(); inv.repeat {
			return nil, 0
		}
		return err, 0
	}
	if plant.Is(plant.SplitCommit) {
		inv.splitCommit()
	}
	batch := w.engine.NewBatch()
	defer batch.Release()
	writes := 0
	for _, a := range inv.set.Accesses {
		if a.Effect == txn.Put || a.Effect == txn.Delete {
			inv.putEffect(batch, a, a.Value, a.Effect == txn.Put)
			writes++
		}
	}
	additive := false
	for _, a := range inv.set.Accesses {
		additive = additive || a.Effect == txn.Increment
	}
	inv.answer = inv.output()
	if !inv.req.Ephemeral {
		inv.putRecords(batch, Record{State: stateCompleted, Output: inv.answer}, idem)
	}
	if writes == 0 && !additive {
		if inv.repeat = inv.turns.lost(); inv.repeat {
			return nil, 0
		}
		if !w.current() {
			return left(), 0
		}
		if inv.req.Ephemeral {
			inv.release(0, false)
			return nil, inv.dirty
		}
	}
	if inv.ctx.Err() != nil {
		return inv.timeout(), 0
	}
	n, err := inv.append(batch, additive)
	if err != nil || inv.repeat {
		return err, 0
	}
	if writes > 0 || additive {
		w.opt.fate().note(n)
	}
	inv.install(n)
	inv.release(n, false)
	if writes == 0 && !additive && idem == nil {
		return nil, inv.dirty // nothing but the record of a read: its loss would change nothing
	}
	return nil, n
}

// settleEffects turns increments under exclusive locks into writes, drops
// deletions of absent keys, and makes sure that the version of every written
// key is known.
func (inv *invocation) settleEffects() *base.Error {
	for _, a := range inv.set.Accesses {
		if a.Effect == txn.None {
			continue
		}
		if a.Effect == txn.Increment && a.Mode == txn.Exclusive {
			if _, _, err := inv.read(a); err != nil {
				return inv.fail
			}
		}
		if err := inv.load(a); err != nil {
			_ = inv.failStore(err) // kept in fail
			return inv.fail
		}
		if a.Effect == txn.Delete && !a.Entry.Present {
			a.Effect = txn.None
		}
	}
	return nil
}

// putEffect writes the next version of a key into the batch.
func (inv *invocation) putEffect(batch store.Batch, a *txn.Access, value []byte, present bool) {
	inv.key = store.AppendDataKey(inv.key[:0], a.Key)
	inv.val = store.AppendDataValue(inv.val[:0], a.Entry.Version+1, value, present)
	batch.Set(inv.key, inv.val)
}

// append appends the batch. On an error, and if the attempt is to be repeated,
// nothing has happened.
func (inv *invocation) append(batch store.Batch, additive bool) (n base.Number, fail *base.Error) {
	w := inv.w
	for {
		view := w.view()
		if !inv.appendHolding(func() { n, fail = inv.appendIn(view, batch, additive) }) {
			inv.repeat = true
			return 0, nil
		}
		switch {
		case fail == nil || w.leases == nil:
			return n, fail
		case w.view() != view: // installed meanwhile
			continue
		case w.engine.Sealed() <= view:
			return n, fail
		}
		// The store is sealed for a view that is not installed here yet.
		if !inv.awaitView(view) {
			return 0, inv.outOfTime()
		}
	}
}

// appendIn appends the batch in a view, in the commit section if it has sums.
func (inv *invocation) appendIn(view base.View, batch store.Batch, additive bool) (base.Number, *base.Error) {
	w := inv.w
	if additive {
		w.commitMu.Lock()
		defer w.commitMu.Unlock()
		if err := inv.sumUp(batch); err != nil {
			return 0, err
		}
	}
	n, err := w.engine.Append(view, batch)
	if err != nil {
		return 0, asError(err)
	}
	if additive {
		inv.installSums(n)
	}
	return n, nil
}

// sumUp computes the values of additive keys and writes them into the batch.
// Called in the commit section, where no other sum can change.
func (inv *invocation) sumUp(batch store.Batch) *base.Error {
	for _, a := range inv.set.Accesses {
		if a.Effect != txn.Increment {
			continue
		}
		sh := inv.w.shard(a.Slot)
		sh.lock()
		value, _, err := a.Resolve()
		if err != nil {
			inv.dirty = max(inv.dirty, a.Entry.Dirty) // the newest sum is not to be had from what was read
		}
		if plant.Is(plant.StaleSum) {
			value = staleSum(a)
		}
		sh.unlock()
		if err != nil {
			return asError(err)
		}
		a.Value = value
		inv.putEffect(batch, a, value, true)
	}
	return nil
}

func (inv *invocation) installSums(n base.Number) {
	for _, a := range inv.set.Accesses {
		if a.Effect != txn.Increment {
			continue
		}
		sh := inv.w.shard(a.Slot)
		sh.lock()
		sh.table.Install(a.Entry, a.Entry.Version+1, a.Value, true, n)
		sh.unlock()
	}
}

// install brings the entries of exclusively written keys up to date and
// releases their locks.
func (inv *invocation) install(n base.Number) {
	for _, a := range inv.set.Accesses {
		if a.Effect != txn.Put && a.Effect != txn.Delete {
			continue
		}
		sh := inv.w.shard(a.Slot)
		sh.lock()
		sh.table.Install(a.Entry, a.Entry.Version+1, a.Value, a.Effect == txn.Put, n)
		woken := sh.table.Release(&a.Lock, inv.woken[:0])
		sh.unlock()
		inv.wakeLocks(woken)
	}
}

// output is the invocation's answer.
func (inv *invocation) output() []byte {
	if inv.req.Flow == nil {
		return appendResults(make([]byte, 0, 64+64*len(inv.results)), inv.results)
	}
	if i := inv.req.Flow.Output; i >= 0 {
		return inv.outputs[i]
	}
	return inv.req.Flow.AppendOutput(nil, inv.outputs)
}

// putRecords writes the invocation's record and its idempotency record.
func (inv *invocation) putRecords(batch store.Batch, r Record, idem *idempotency) {
	r.ID, r.Workflow, r.Worker = inv.req.ID, inv.req.Name, inv.w.opt.Name
	r.Attempts, r.Started, r.Ended = inv.attempts, inv.started, time.Now()
	inv.key = store.InvocationKey(inv.key[:0], r.ID)
	inv.val = appendRecord(inv.val[:0], &r)
	batch.Set(inv.key, inv.val)
	if idem != nil {
		inv.key = store.IdempotencyKey(inv.key[:0], idem.hash)
		inv.val = appendIdempotency(inv.val[:0], idempotencyRecord{
			digest: inv.req.Digest, id: r.ID, expires: r.Ended.Add(inv.w.idempotencyLife()),
		})
		batch.Set(inv.key, inv.val)
	}
}

// keepFailure appends the record of an invocation that failed. With an
// idempotency record the answer has to wait for it; without, its loss would
// change nothing. A worker among others that cannot serve the invocation keeps
// nothing: the gateway has another worker run it under the same id, whose record
// this one, which may reach the store late, must not replace.
func (inv *invocation) keepFailure(err *base.Error, idem *idempotency) base.Number {
	if inv.w.leases != nil && err.Kind == base.Unavailable && !plant.Is(plant.KeepUnavailable) {
		return inv.dirty
	}
	batch := inv.w.engine.NewBatch()
	defer batch.Release()
	state := stateFailed
	if err.Kind == base.Aborted {
		state = stateAborted
	}
	if !definitive(err) {
		idem = nil
	}
	inv.putRecords(batch, Record{State: state, Err: err}, idem)
	n, appendErr := inv.append(batch, false)
	if appendErr != nil {
		inv.w.opt.Logger.Warn("the record of a failed invocation was not kept", "invocation", inv.req.ID, "err", appendErr)
		return inv.dirty
	}
	if idem == nil {
		return inv.dirty
	}
	return n
}

// definitive reports whether a failure is the invocation's outcome for good,
// so that a repeated idempotency key gets it again, rather than a circumstance
// of this try.
func definitive(err *base.Error) bool {
	switch err.Kind {
	case base.Aborted, base.FunctionError, base.Precondition:
		return true
	default:
		return false
	}
}

func appendDecimal(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }
