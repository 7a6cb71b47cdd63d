package lease

import (
	"fmt"

	"github.com/tenure-faas/tenure/base"
)

// Home rebuilds the lease words whose home this worker is, once a view, from the
// reports of all members: what they hold when they have left the view before.
// Until the last report no word is given out; after it no verb of an older view
// can reach them, so the CPU may write them (lease_protocol.md section 8).
//
// Like Core it is pure and not safe for concurrent use.
type Home struct {
	me      Worker
	members *Members
	// holders are the slots that members have reported; reported, who has.
	holders  map[base.Slot]Worker
	reported map[Worker]bool
	built    bool
}

// NewHome returns a home in no view.
func NewHome(me Worker) *Home {
	return &Home{me: me, holders: map[base.Slot]Worker{}, reported: map[Worker]bool{}}
}

// Install enters a view: all reports of the one before are forgotten.
func (h *Home) Install(m *Members) {
	h.members, h.built = m, false
	clear(h.holders)
	clear(h.reported)
}

// Built says whether the words of the installed view stand.
func (h *Home) Built() bool { return h.built }

// Report takes over what a member holds in view v. Whole says that it was the
// last that was missing: write Words, call Done, and tell all members. A repeated
// report changes nothing; one of another view, or from somebody who is no member,
// is ignored. Two holders of a slot are a fault of the protocol.
func (h *Home) Report(from Member, v base.View, slots []base.Slot) (whole bool, err error) {
	if h.members == nil || v != h.members.View || h.built || h.reported[from.Worker] {
		return false, nil
	}
	if inc, member := h.members.Incarnation(from.Worker); !member || inc != from.Incarnation {
		return false, nil
	}
	for _, s := range slots {
		if s >= base.SlotCount || h.members.Home(s) != h.me {
			return false, fmt.Errorf("lease: w%d reports slot %d to w%d, which is not its home in view %d", from.Worker, s, h.me, v)
		}
		if other, double := h.holders[s]; double && other != from.Worker {
			return false, fmt.Errorf("lease: slot %d has two holders in view %d: w%d and w%d", s, v, other, from.Worker)
		}
		h.holders[s] = from.Worker
	}
	h.reported[from.Worker] = true
	return len(h.reported) == len(h.members.All), nil
}

// Words yields the word of each slot below limit whose home this worker is: first
// that of a free slot for each, then those that are held.
func (h *Home) Words(limit base.Slot, yield func(base.Slot, Word)) {
	free := MakeWord(h.members.View, Free, 0)
	const each = base.SlotCount / ShardCount
	for first := base.Slot(0); first < limit; first += each {
		if h.members.Home(first) != h.me {
			continue
		}
		for s := first; s < min(first+each, limit); s++ {
			yield(s, free)
		}
	}
	for s, w := range h.holders {
		yield(s, MakeWord(h.members.View, w, 0))
	}
}

// Done says that the words are written.
func (h *Home) Done() {
	h.built = true
	clear(h.holders) // up to 2^20 entries that nobody needs any more
}
