package leases

import (
	"runtime"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
)

// heap is how much of it is in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first has found dead is swept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// bytesOfHeldSlots holds every slot of keys in one of some parts, and returns what
// each costs while nobody uses it, tables included.
func bytesOfHeldSlots(t testing.TB, parts base.Slot) float64 {
	t.Helper()
	m, err := lease.NewMembers(1, []lease.Member{{Worker: 1, Incarnation: 1}})
	if err != nil {
		t.Fatal(err)
	}
	u := lease.User{Mode: lease.Write}
	var actions []lease.Action
	before := heap()
	core := lease.New(lease.Options{Me: 1, Parts: parts})
	core.Install(m)
	core.Ready(1, 1)
	for s := base.Slot(base.GateCount); s < base.SlotCount; s += parts {
		status := core.Acquire(s, &u, true)
		for status != lease.Granted {
			actions = core.Actions(actions[:0])
			if len(actions) == 0 {
				t.Fatalf("slot %d: no turn, and nothing to do: %v", s, core.Explain(s))
			}
			for _, a := range actions {
				switch a.Kind {
				case lease.CAS:
					core.Swung(s, 1, a.Ticket, true, a.Expect)
				case lease.Load:
					core.Loaded(s, 1, a.Ticket)
				case lease.Wake:
					status = lease.Granted
				}
			}
		}
		core.Release(&u, 0)
	}
	after := heap()
	slots := int(base.SlotCount-base.GateCount) / int(parts)
	if core.Known() != slots {
		t.Fatalf("%d slots are known, want %d", core.Known(), slots)
	}
	return float64(after-before) / float64(slots)
}

// TestMemoryOfHeldSlots keeps a lease that nobody uses from growing. The aim is 200
// bytes.
func TestMemoryOfHeldSlots(t *testing.T) {
	const most = 200
	if each := bytesOfHeldSlots(t, 8); each > most {
		t.Errorf("%.0f bytes for each slot, want at most %d", each, most)
	}
}

// BenchmarkMemoryOfHeldSlots holds a million of them.
func BenchmarkMemoryOfHeldSlots(b *testing.B) {
	var each float64
	for b.Loop() {
		each = bytesOfHeldSlots(b, 1)
	}
	b.ReportMetric(each, "B/slot")
}
