package lease

import (
	"fmt"
	"slices"

	"github.com/tenure-faas/tenure/base"
)

// ShardCount is the number of shards of the slots. All slots of a shard have the
// same home.
const ShardCount = 4096

// Shard returns the shard of a slot: neighbours share one, so that the report of
// a shard is a run of slots.
func Shard(s base.Slot) int { return int(s) / (base.SlotCount / ShardCount) }

// Member is one incarnation of a worker.
type Member struct {
	// Worker is its number.
	Worker Worker
	// Incarnation counts the starts of its process.
	Incarnation uint32
}

// Members is a membership with its homes: immutable, made once a view and shared
// by all who need it.
type Members struct {
	// View is its number.
	View base.View
	// All are the members, by number.
	All []Member
	// homes has the home of every shard.
	homes [ShardCount]Worker
}

// NewMembers computes the homes: for each shard the member with the highest
// hash of shard and worker (rendezvous hashing), so that a change of membership
// moves only the shards that it must.
func NewMembers(v base.View, all []Member) (*Members, error) {
	m := &Members{View: v, All: slices.Clone(all)}
	slices.SortFunc(m.All, func(a, b Member) int { return int(a.Worker) - int(b.Worker) })
	for i, member := range m.All {
		if member.Worker == Free || member.Worker > MaxWorker {
			return nil, fmt.Errorf("lease: worker number %d is not in 1..%d", member.Worker, MaxWorker)
		}
		if i > 0 && m.All[i-1].Worker == member.Worker {
			return nil, fmt.Errorf("lease: worker %d is a member twice", member.Worker)
		}
	}
	if v > MaxView {
		return nil, fmt.Errorf("lease: view %d is beyond %d: restart the cluster", v, MaxView)
	}
	for shard := range m.homes {
		var best uint64
		for _, member := range m.All {
			if h := mix(uint64(shard)<<16 | uint64(member.Worker)); h >= best {
				best, m.homes[shard] = h, member.Worker
			}
		}
	}
	return m, nil
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Home is the worker whose memory has the slot's word; Free if there are no
// members.
func (m *Members) Home(s base.Slot) Worker { return m.homes[Shard(s)] }

// Incarnation is that of a member; false if w is none.
func (m *Members) Incarnation(w Worker) (uint32, bool) {
	i, found := slices.BinarySearchFunc(m.All, w, func(member Member, w Worker) int { return int(member.Worker) - int(w) })
	if !found {
		return 0, false
	}
	return m.All[i].Incarnation, true
}

// Same says whether w is the same incarnation in both memberships.
func (m *Members) Same(o *Members, w Worker) bool {
	a, in := m.Incarnation(w)
	b, was := o.Incarnation(w)
	return in && was && a == b
}
