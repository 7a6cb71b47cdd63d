package worker

import (
	"runtime"

	"github.com/tenure-faas/tenure/txn"
)

// The bodies of planted bugs (internal/plant); an ordinary build never calls
// them.

// dropRead gives a shared lock back at once (plant.EarlyReadRelease).
func (inv *invocation) dropRead(a *txn.Access) {
	if a.Mode != txn.Shared || inv.set.Accesses[len(inv.set.Accesses)-1] != a {
		return
	}
	sh := inv.w.shard(a.Slot)
	sh.lock()
	woken := sh.table.Release(&a.Lock, inv.woken[:0])
	sh.unlock()
	inv.wakeLocks(woken)
	inv.set.Remove(a)
}

// showEarly puts an uncommitted value into the cache (plant.WriteThrough).
func (inv *invocation) showEarly(a *txn.Access) {
	sh := inv.w.shard(a.Slot)
	sh.lock()
	a.Entry.Value, a.Entry.Present, a.Entry.Loaded = a.Value, true, true
	sh.unlock()
}

// staleSum adds to what the value was when the function added (plant.StaleSum).
func staleSum(a *txn.Access) []byte {
	sum, err := txn.AddDecimal(a.Value, len(a.Value) > 0, a.Delta)
	if err != nil {
		panic("worker: a planted bug cannot add: " + err.Error())
	}
	return appendDecimal(nil, sum)
}

// splitCommit commits and releases key by key (plant.SplitCommit).
func (inv *invocation) splitCommit() {
	for _, a := range inv.set.Accesses {
		if a.Effect != txn.Put && a.Effect != txn.Delete {
			continue
		}
		batch := inv.w.engine.NewBatch()
		inv.putEffect(batch, a, a.Value, a.Effect == txn.Put)
		n, err := inv.append(batch, false)
		batch.Release()
		if err != nil {
			panic("worker: a planted bug cannot append: " + err.Error())
		}
		sh := inv.w.shard(a.Slot)
		sh.lock()
		sh.table.Install(a.Entry, a.Entry.Version+1, a.Value, a.Effect == txn.Put, n)
		woken := sh.table.Release(&a.Lock, inv.woken[:0])
		sh.unlock()
		inv.wakeLocks(woken)
		a.Effect = txn.None
		runtime.Gosched()
	}
}
