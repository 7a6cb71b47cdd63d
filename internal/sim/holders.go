package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/worker"
)

// watchEvery is how often the leases are looked at.
const watchEvery = 80 * time.Millisecond

// watched are the slots that clients use.
func watched() (all []base.Slot) {
	for table, n := range map[string]int{lists: listCount, counters: counterCount, accounts: accountCount} {
		for i := range n {
			all = append(all, base.Key{Table: table, Key: table + strconv.Itoa(i)}.Slot())
		}
		all = append(all, base.GateSlot(table))
	}
	return all
}

// living are the workers that run, and do not stand still, by host.
func (w *world) living() map[string]*worker.Worker {
	all := map[string]*worker.Worker{}
	for _, h := range w.workers {
		h.mu.Lock()
		x, p := h.worker, h.now
		h.mu.Unlock()
		if x == nil || !p.alive() {
			continue
		}
		w.net.mu.Lock()
		still := p.stopped
		w.net.mu.Unlock()
		if !still {
			all[h.name] = x
		}
	}
	return all
}

// watchHolders looks again and again whether a slot has two exclusive holders in
// one view. A look takes no time: there is one thread, and nothing in it waits.
func (w *world) watchHolders() {
	slots := watched()
	for w.sleep(watchEvery) {
		workers := w.living()
		for _, s := range slots {
			holder := map[base.View]string{}
			for _, h := range w.workers {
				x := workers[h.name]
				if x == nil {
					continue
				}
				k := x.Leases().Explain(s)
				if !exclusive(&k) {
					continue
				}
				if other := holder[k.View]; other != "" {
					w.fail("slot %d has two holders in view %d: %s and %s (%+v)", s, k.View, other, h.name, k)
					return
				}
				holder[k.View] = h.name
			}
		}
		w.count("looks at the holders", 1)
	}
}

func exclusive(k *lease.Knowledge) bool {
	return k.State == "held" || k.State == "loading"
}

// describe says how the leases stand, for a failure.
func (w *world) describe() string {
	var b strings.Builder
	workers := w.living()
	for _, h := range w.workers {
		x := workers[h.name]
		if x == nil {
			fmt.Fprintf(&b, "\n%s: does not run", h.name)
			continue
		}
		fmt.Fprintf(&b, "\n%s: %+v", h.name, x.Status())
		for _, s := range watched() {
			if k := x.Leases().Explain(s); k.State != "" || k.Queue > 0 {
				fmt.Fprintf(&b, "\n  slot %d: %+v", s, k)
			}
		}
	}
	return b.String()
}
