package worker

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/txn"
)

// maxCallDepth bounds Host.Call within Host.Call.
const maxCallDepth = 16

// host is the view that one step has of its invocation. Its step calls it
// from one goroutine at a time; parallel steps have a host each and meet at
// invocation.mu.
type host struct {
	inv   *invocation
	step  int
	depth int // of nested calls
}

var _ runtime.Host = (*host)(nil)

// Get implements runtime.Host.
func (h *host) Get(table, key string) ([]byte, bool, error) {
	inv := h.inv
	inv.mu.Lock()
	defer inv.mu.Unlock()
	a, err := inv.access(h.step, base.Key{Table: table, Key: key}, txn.Read)
	if err != nil {
		return nil, false, err
	}
	value, present, err := inv.read(a)
	if err != nil {
		return nil, false, err
	}
	if plant.Is(plant.EarlyReadRelease) {
		inv.dropRead(a)
	}
	return value, present, nil
}

// read returns what the transaction sees of a key it holds at least shared.
func (inv *invocation) read(a *txn.Access) (value []byte, present bool, err error) {
	if err := inv.load(a); err != nil {
		return nil, false, inv.failStore(err)
	}
	if a.Effect == txn.Increment {
		// The lock was strengthened to exclusive, so the sum stands still.
		value, _, err := a.Resolve()
		if err != nil {
			return nil, false, inv.broke(err)
		}
		a.Effect, a.Value, a.Delta = txn.Put, value, 0
	}
	value, present = a.Current()
	return value, present, nil
}

// failStore ends the invocation because the store did not answer.
func (inv *invocation) failStore(err error) error {
	if e, ok := err.(*base.Error); ok {
		inv.stop(e)
	} else {
		inv.stop(base.Errorf(base.Internal, "%v", err))
	}
	return err
}

// Put implements runtime.Host.
func (h *host) Put(table, key string, value []byte) error {
	inv := h.inv
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if inv.over {
		return runtime.ErrAttemptOver
	}
	if err := inv.roomFor(table, key, len(value)); err != nil {
		return inv.broke(err)
	}
	a, err := inv.access(h.step, base.Key{Table: table, Key: key}, txn.Write)
	if err != nil {
		return err
	}
	a.Effect, a.Value, a.Delta = txn.Put, append(make([]byte, 0, len(value)), value...), 0
	if plant.Is(plant.WriteThrough) {
		inv.showEarly(a)
	}
	return nil
}

// roomFor refuses a value that is over a limit.
func (inv *invocation) roomFor(table, key string, n int) error {
	if n > inv.w.opt.MaxValueBytes {
		return base.Errorf(base.TooLarge, "the value of %s/%s has %d bytes, the limit is %d", table, key, n, inv.w.opt.MaxValueBytes)
	}
	if inv.written += n; inv.written > inv.w.opt.MaxWriteBytes {
		return base.Errorf(base.TooLarge, "the transaction writes more than %d bytes", inv.w.opt.MaxWriteBytes)
	}
	return nil
}

// Delete implements runtime.Host.
func (h *host) Delete(table, key string) error {
	inv := h.inv
	inv.mu.Lock()
	defer inv.mu.Unlock()
	a, err := inv.access(h.step, base.Key{Table: table, Key: key}, txn.Write)
	if err != nil {
		return err
	}
	a.Effect, a.Value, a.Delta = txn.Delete, nil, 0
	return nil
}

// Add implements runtime.Host.
func (h *host) Add(table, key string, delta int64) error {
	inv := h.inv
	inv.mu.Lock()
	defer inv.mu.Unlock()
	a, err := inv.access(h.step, base.Key{Table: table, Key: key}, txn.AddTo)
	if err != nil {
		return err
	}
	if err := inv.load(a); err != nil {
		return inv.failStore(err)
	}
	if err := inv.add(a, delta); err != nil {
		return inv.broke(err)
	}
	return nil
}

// add buffers an addition. Under an exclusive lock it is a plain write; under
// an additive one the sum is made in the commit section, and only that the
// stored value is a number is checked now (it stays one: others can but add).
func (inv *invocation) add(a *txn.Access, delta int64) error {
	if a.Mode == txn.Exclusive {
		value, present, err := inv.read(a)
		if err != nil {
			return err
		}
		sum, err := txn.AddDecimal(value, present, delta)
		if err != nil {
			return err
		}
		a.Effect, a.Value = txn.Put, appendDecimal(nil, sum)
		return nil
	}
	total, err := txn.AddDelta(a.Delta, delta)
	if err != nil {
		return err
	}
	sh := inv.w.shard(a.Slot)
	sh.lock()
	_, err = txn.AddDecimal(a.Entry.Value, a.Entry.Present, 0)
	sh.unlock()
	if err != nil {
		return err
	}
	if plant.Is(plant.StaleSum) && a.Effect == txn.None {
		a.Value = a.Entry.Value
	}
	a.Effect, a.Delta = txn.Increment, total
	return nil
}

// Scan implements runtime.Host.
func (h *host) Scan(table, prefix string, limit int) ([]runtime.Entry, error) {
	inv := h.inv
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if inv.over {
		return nil, runtime.ErrAttemptOver
	}
	if err := base.ValidateName("table", table); err != nil {
		return nil, inv.broke(err)
	}
	if len(prefix) > base.MaxKeyBytes {
		return nil, inv.broke(base.Errorf(base.TooLarge, "scan prefix has %d bytes, the limit is %d", len(prefix), base.MaxKeyBytes))
	}
	if limit <= 0 || limit > inv.w.opt.MaxScan {
		limit = inv.w.opt.MaxScan
	}
	r := txn.Range{Table: table, Prefix: prefix}
	if !inv.passScan(r) {
		inv.foot.WantScan(r)
		inv.endAttempt()
		return nil, runtime.ErrAttemptOver
	}
	if !inv.scanInOrder(r, h.step) {
		return nil, runtime.ErrAttemptOver
	}
	own, err := inv.ownEffects(r)
	if err != nil {
		return nil, err
	}
	return inv.scan(r, limit, own)
}

// passScan makes sure that the attempt has passed the gate of the table with
// the range among its scans, without waiting.
func (inv *invocation) passScan(r txn.Range) bool {
	if p := inv.set.Pass(r.Table); p != nil && slices.ContainsFunc(p.Scans, func(s string) bool { return strings.HasPrefix(r.Prefix, s) }) {
		return true
	}
	return inv.pass(r.Table, []string{r.Prefix})
}

// effect is one of the transaction's own effects in a scanned range.
type effect struct {
	key     string
	value   []byte
	present bool
}

// ownEffects returns the transaction's own effects in a range, in key order.
func (inv *invocation) ownEffects(r txn.Range) ([]effect, error) {
	var own []effect
	for _, a := range inv.set.Accesses {
		if a.Effect == txn.None || a.Key.Table != r.Table || !strings.HasPrefix(a.Key.Key, r.Prefix) {
			continue
		}
		if a.Effect == txn.Increment && !inv.strengthen(a, txn.Exclusive) {
			return nil, runtime.ErrAttemptOver
		}
		value, present, err := inv.read(a)
		if err != nil {
			return nil, err
		}
		own = append(own, effect{a.Key.Key, value, present})
	}
	slices.SortFunc(own, func(a, b effect) int { return strings.Compare(a.key, b.key) })
	return own, nil
}

// scan reads a range from the store and lays the transaction's own effects
// over it. The gate keeps every other writer of the range out, and every batch
// of an earlier one is visible in the store; the answer depends on all that
// has been appended so far.
func (inv *invocation) scan(r txn.Range, limit int, own []effect) ([]runtime.Entry, error) {
	inv.dirty = max(inv.dirty, inv.w.engine.Appended())
	var entries []runtime.Entry
	size := 0
	add := func(key string, value []byte) bool {
		entries = append(entries, runtime.Entry{Key: key, Value: value})
		size += len(key) + len(value)
		return len(entries) < limit && size <= inv.w.opt.MaxWriteBytes
	}
	full := false
	ownBefore := func(key string) {
		for len(own) > 0 && own[0].key < key && !full {
			if own[0].present && !add(own[0].key, own[0].value) {
				full = true
			}
			own = own[1:]
		}
	}
	lo, hi := store.DataRange(r.Table, r.Prefix)
	var corrupt error
	err := inv.w.engine.Scan(lo, hi, func(k, raw []byte) bool {
		key := string(store.DataKeySuffix(r.Table, k))
		if ownBefore(key); full {
			return false
		}
		_, value, present, err := store.DecodeDataValue(raw)
		if err != nil {
			corrupt = base.Errorf(base.Internal, "key %s/%s: %v", r.Table, key, err)
			return false
		}
		if len(own) > 0 && own[0].key == key {
			value, present = own[0].value, own[0].present
			own = own[1:]
		}
		if present && !add(key, slices.Clone(value)) {
			full = true
		}
		return !full
	})
	if err == nil {
		err = corrupt
	}
	if err != nil {
		return nil, inv.failStore(err)
	}
	if !full {
		ownBefore("\xff\xff") // no key is greater: keys are valid UTF-8
	}
	if size > inv.w.opt.MaxWriteBytes {
		return nil, inv.broke(base.Errorf(base.TooLarge, "scan of %s/%s* returns more than %d bytes: use a limit", r.Table, r.Prefix, inv.w.opt.MaxWriteBytes))
	}
	return entries, nil
}

// Call implements runtime.Host.
func (h *host) Call(function, handler string, input []byte) ([]byte, error) {
	inv := h.inv
	if h.depth >= maxCallDepth {
		inv.mu.Lock()
		defer inv.mu.Unlock()
		return nil, inv.broke(base.Errorf(base.TooLarge, "calls are nested more than %d deep", maxCallDepth))
	}
	if inv.req.Lookup == nil {
		return nil, base.Errorf(base.NotFound, "no function %q", function)
	}
	bundle, err := inv.req.Lookup(function)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(bundle.Handlers(), handler) {
		return nil, base.Errorf(base.NotFound, "function %q has no handler %q", function, handler)
	}
	h.depth++
	output, err := bundle.Invoke(inv.ctx, runtime.Call{Handler: handler, Input: input, Host: h})
	h.depth--
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if err != nil {
		inv.stop(inv.outcomeOf(err))
	}
	if inv.over {
		return nil, runtime.ErrAttemptOver
	}
	return output, nil
}

// Result implements runtime.Host.
func (h *host) Result(step string) ([]byte, bool) {
	inv := h.inv
	i, ok := inv.req.Flow.Index(step)
	if !ok || !inv.req.Flow.Ordered(i, h.step) {
		return nil, false
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	return inv.outputs[i], true
}

// Abort implements runtime.Host.
func (h *host) Abort(reason string) {
	h.inv.mu.Lock()
	defer h.inv.mu.Unlock()
	h.inv.stop(aborted(reason))
}

// maxReasonBytes bounds what an aborting function says.
const maxReasonBytes = 1 << 10

func aborted(reason string) *base.Error {
	if len(reason) > maxReasonBytes {
		reason = reason[:maxReasonBytes]
	}
	return &base.Error{
		Kind: base.Aborted, Detail: "the function aborted the transaction; nothing was changed",
		Reason: strings.ToValidUTF8(reason, "\uFFFD"),
	}
}

// Now implements runtime.Host.
func (h *host) Now() time.Time { return h.inv.now }

// Rand implements runtime.Host.
func (h *host) Rand() uint64 { return rand.Uint64() }

// Log implements runtime.Host.
func (h *host) Log(message string) {
	inv := h.inv
	step := inv.req.Name
	if inv.req.Flow != nil {
		step = inv.req.Flow.Steps[h.step].Name
	}
	inv.w.opt.Logs.Add(LogLine{
		Time: time.Now(), Invocation: inv.req.ID, Workflow: inv.req.Name, Step: step,
		Message: message, Trace: inv.req.Trace,
	})
}

// InvocationID implements runtime.Host.
func (h *host) InvocationID() base.InvocationID { return h.inv.req.ID }
