package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/store"
)

// Execute runs one invocation to its end and returns its outcome, when
// everything that the outcome depends on is durable. It blocks for locks, for
// functions and for the disk, at most about until the deadline.
func (w *Worker) Execute(ctx context.Context, req *Request) Reply {
	defer func() {
		// Bundles turn the panics of functions into errors; what arrives here is
		// the platform's own, and HTTP servers would go on after it.
		if fault := recover(); fault != nil {
			w.opt.OnPanic(fault, debug.Stack())
		}
	}()
	deadline := req.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(w.opt.Timeout)
	}
	if d, ok := ctx.Deadline(); !ok || d.After(deadline) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	if req.IdempotencyKey == "" || plant.Is(plant.NoFlight) {
		return w.execute(ctx, req, nil)
	}
	return w.executeOnce(ctx, req)
}

// Load writes ops (OpPut without conditions) as one transaction of which no
// record is kept, and returns when it is durable.
func (w *Worker) Load(ctx context.Context, ops []Op) error {
	reply := w.Execute(ctx, &Request{Name: "load", Ops: ops, Ephemeral: true})
	if reply.Err != nil {
		return reply.Err
	}
	return nil
}

// retryAfter is the hint given with refusals that pass by themselves.
const retryAfter = time.Second

func (w *Worker) refuse(req *Request, err *base.Error) Reply {
	err.RetryAfter = retryAfter
	return Reply{ID: req.ID, Err: err}
}

// execute admits, runs and answers one invocation.
func (w *Worker) execute(ctx context.Context, req *Request, idem *idempotency) Reply {
	if err := w.admit(ctx); err != nil {
		return w.refuse(req, err)
	}
	defer w.leave()
	inv := w.pool.Get().(*invocation)
	defer inv.recycle()
	inv.req, inv.ctx, inv.started, inv.attempts, inv.dirty, inv.idem = req, ctx, time.Now(), 0, 0, idem
	if err := inv.prepare(); err != nil {
		return Reply{ID: req.ID, Err: asError(err)}
	}
	failure, n := inv.transact(idem)
	if inv.replay != nil {
		return *inv.replay
	}
	if failure != nil {
		n = inv.dirty
		if !req.Ephemeral {
			n = inv.keepFailure(failure, idem)
		}
		if w.leases != nil {
			inv.giveTurns(n, false)
		}
	}
	if !inv.turns.waited {
		w.local.Add(1)
	}
	if plant.Is(plant.NoBarrier) {
		n = 0
	}
	if err := w.engine.WaitDurable(ctx, n); err != nil {
		return Reply{ID: req.ID, Attempts: inv.attempts, Err: inv.undurable(failure, err)}
	}
	reply := Reply{ID: req.ID, Attempts: inv.attempts, Err: failure}
	if failure == nil {
		reply.Output = inv.answer
		if req.Flow == nil {
			reply.Results = append([]OpResult(nil), inv.results...)
		}
	} else if failure.Kind == base.Conflict || failure.Kind == base.Unavailable {
		failure.RetryAfter = retryAfter
	}
	return reply
}

// undurable is the error of an invocation whose outcome was on the way to the disk
// when the deadline passed, or when the store said that it will not come there.
func (inv *invocation) undurable(failure *base.Error, err error) *base.Error {
	if e, ok := errors.AsType[*base.Error](err); ok && e.Kind == base.Unavailable {
		return &base.Error{Kind: base.Unavailable, Unknown: e.Unknown && failure == nil, Detail: e.Detail, RetryAfter: retryAfter}
	}
	if failure != nil {
		return inv.timeout()
	}
	return &base.Error{
		Kind: base.Timeout, Unknown: true,
		Detail: "the deadline passed while the commit was being made durable: the outcome is unknown: ask again with the same Idempotency-Key",
	}
}

// transact tries the transaction until it commits, fails for good or has used
// up its attempts. On success the number is what has to be durable before the
// answer may leave.
func (inv *invocation) transact(idem *idempotency) (*base.Error, base.Number) {
	for {
		failure := inv.begin()
		if failure == nil && inv.recalled() {
			inv.release(0, false)
			return nil, 0
		}
		if failure == nil {
			inv.run()
			failure = inv.fail
		}
		if inv.turns.lost() { // what it has seen need not fit together
			failure, inv.repeat = nil, true
		}
		if failure == nil && !inv.repeat {
			var n base.Number
			if failure, n = inv.commit(idem); failure == nil && !inv.repeat {
				return nil, n
			}
		}
		if failure != nil && definitive(failure) && !inv.w.current() {
			failure = left()
		}
		if inv.repeat {
			inv.foot.Learn(&inv.set)
		}
		if plant.Is(plant.AbortApplies) && failure != nil && failure.Kind == base.Aborted {
			inv.commit(nil)
		}
		inv.release(0, failure != nil)
		if failure != nil {
			return failure, 0
		}
		if inv.attempts >= inv.w.opt.MaxAttempts {
			return base.Errorf(base.Conflict, "the transaction was tried %d times and kept meeting others on keys it did not declare; nothing was changed: try again, or declare the keys", inv.attempts), 0
		}
	}
}

// recycle returns the invocation's memory to the pool.
func (inv *invocation) recycle() {
	inv.req, inv.ctx, inv.answer, inv.idem, inv.replay = nil, nil, nil, nil, nil
	inv.turns.waited = false
	inv.foot.Reset()
	inv.edges = inv.edges[:0]
	clear(inv.uses)
	inv.uses = inv.uses[:0]
	clear(inv.outputs)
	clear(inv.hosts)
	clear(inv.results)
	inv.results = inv.results[:0]
	const keep = 64 << 10
	if cap(inv.val) > keep {
		inv.val = nil
	}
	inv.w.pool.Put(inv)
}

// admit takes a slot to run, waiting in a queue of bounded length.
func (w *Worker) admit(ctx context.Context) *base.Error {
	select {
	case w.slots <- struct{}{}:
		return w.enter()
	default:
	}
	defer w.queued.Add(-1)
	if w.queued.Add(1) > int64(w.opt.MaxQueued) {
		return base.Errorf(base.Overloaded, "%d invocations run and %d wait; nothing was started", w.opt.MaxRunning, w.opt.MaxQueued)
	}
	select {
	case w.slots <- struct{}{}:
		return w.enter()
	case <-w.stopping:
		return w.shuttingDown()
	case <-ctx.Done():
		return base.Errorf(base.Timeout, "the deadline passed while the invocation waited to run: the outcome is unchanged (nothing was started)")
	}
}

// enter begins to run with the slot just taken, unless the worker is stopping:
// it is checked after the slot is taken because Drain waits for all slots.
func (w *Worker) enter() *base.Error {
	select {
	case <-w.stopping:
		<-w.slots
		return w.shuttingDown()
	default:
		w.running.Add(1)
		return nil
	}
}

func (w *Worker) shuttingDown() *base.Error {
	return base.Errorf(base.Unavailable, "the worker is shutting down; nothing was started")
}

func (w *Worker) leave() {
	w.running.Add(-1)
	<-w.slots
}

// flights are the invocations with an idempotency key that are in progress.
type flights struct {
	mu      sync.Mutex
	running map[[32]byte]*flight
}

// flight is one of them. reply may be read once done is closed.
type flight struct {
	digest [32]byte
	done   chan struct{}
	reply  Reply
}

// idempotency marks an invocation whose outcome is kept under a key.
type idempotency struct {
	hash [32]byte
	// slot is that of the record, as if it were a key.
	slot base.Slot
}

// idempotencyRetention is how long an outcome is kept at least.
const idempotencyRetention = 24 * time.Hour

func (w *Worker) idempotencyLife() time.Duration { return max(w.opt.Retention, idempotencyRetention) }

// executeOnce runs an invocation with an idempotency key, unless the key has
// an outcome already. Duplicates wait for the one that runs; if that one ends
// without an outcome, one of them takes over.
func (w *Worker) executeOnce(ctx context.Context, req *Request) Reply {
	idem := &idempotency{hash: sha256.Sum256([]byte(req.IdempotencyKey))}
	idem.slot = base.Key{Key: string(idem.hash[:])}.Slot()
	for {
		w.flights.mu.Lock()
		f := w.flights.running[idem.hash]
		if f == nil {
			f = &flight{digest: req.Digest, done: make(chan struct{})}
			w.flights.running[idem.hash] = f
			w.flights.mu.Unlock()
			return w.lead(ctx, f, req, idem)
		}
		w.flights.mu.Unlock()
		if f.digest != req.Digest {
			return Reply{ID: req.ID, Err: mismatch()}
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return Reply{ID: req.ID, Err: &base.Error{
				Kind: base.Timeout, Unknown: true,
				Detail: "the deadline passed while the first request with this Idempotency-Key was running: the outcome is unknown: ask again with the same Idempotency-Key",
			}}
		}
		if r := f.reply; r.Err == nil || definitive(r.Err) {
			r.Replayed = true
			return r
		}
	}
}

func mismatch() *base.Error {
	return base.Errorf(base.IdempotencyMismatch, "the Idempotency-Key was used within 24 h for another request; use a new key")
}

// lead runs the invocation for all that wait for the flight.
func (w *Worker) lead(ctx context.Context, f *flight, req *Request, idem *idempotency) Reply {
	defer func() {
		w.flights.mu.Lock()
		delete(w.flights.running, idem.hash)
		w.flights.mu.Unlock()
		close(f.done)
	}()
	var reply Reply
	found := false
	if w.leases == nil { // among others it is looked for under its lease
		reply, found = w.recall(ctx, req, idem)
	}
	if !found {
		reply = w.execute(ctx, req, idem)
		// Duplicates read the output after this call has returned and its input,
		// which an output may be a part of, is used for something else.
		reply.Output = slices.Clone(reply.Output)
	}
	f.reply = reply
	return reply
}

// recall looks for the outcome of an earlier invocation with the same key.
func (w *Worker) recall(ctx context.Context, req *Request, idem *idempotency) (Reply, bool) {
	fail := func(err error) (Reply, bool) { return Reply{ID: req.ID, Err: asError(err)}, true }
	raw, found, err := w.engine.Get(nil, store.IdempotencyKey(nil, idem.hash))
	if err != nil {
		return fail(err)
	}
	if !found {
		return Reply{}, false
	}
	k, err := decodeIdempotency(raw)
	if err != nil {
		return fail(err)
	}
	if time.Now().After(k.expires) {
		return Reply{}, false
	}
	if k.digest != req.Digest {
		return fail(mismatch())
	}
	// The record was appended, perhaps by a request that did not live to see
	// it durable.
	if err := w.engine.WaitDurable(ctx, w.engine.Appended()); err != nil {
		return fail(&base.Error{
			Kind: base.Timeout, Unknown: true,
			Detail: "the deadline passed while the first outcome was being made durable: the outcome is unknown: ask again with the same Idempotency-Key",
		})
	}
	r, err := w.record(k.id)
	if err != nil {
		return fail(err)
	}
	return Reply{ID: r.ID, Output: r.Output, Replayed: true, Attempts: r.Attempts, Err: r.Err}, true
}

// asError returns err as an *base.Error; what has no kind is Internal.
func asError(err error) *base.Error {
	if e, ok := errors.AsType[*base.Error](err); ok {
		return e
	}
	return base.Errorf(base.Internal, "%v", err)
}
