package leasemgr

import (
	"encoding/json"
	"fmt"

	"github.com/tenure-faas/tenure/leasemgr/membership"
	"github.com/tenure-faas/tenure/store"
)

// Membership is the durable record of the view.
type Membership = membership.Record

var membershipKey = store.MetaKey("membership")

// ReadMembership returns the current membership; a new store has view 0 and no
// members.
func ReadMembership(r store.Reader) (Membership, error) {
	m := Membership{Members: map[string]uint64{}, Incarnations: map[string]uint64{}}
	raw, found, err := r.Get(nil, membershipKey)
	if err != nil || !found {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("the membership record is not readable: %w", err)
	}
	return m, nil
}

// Admit makes a new view in which worker, in a new incarnation, is the only
// member: it decides the view durably, then seals the store against all older
// views, in this order. It blocks for the disk.
func Admit(engine store.Engine, worker string) (Membership, error) {
	old, err := ReadMembership(engine)
	if err != nil {
		return Membership{}, err
	}
	m := old
	m.View = max(old.View, engine.Sealed()) + 1
	m.Incarnations[worker]++
	m.Members = map[string]uint64{worker: m.Incarnations[worker]}
	raw, err := json.Marshal(m)
	if err != nil {
		return Membership{}, fmt.Errorf("encode the membership: %w", err)
	}
	batch := engine.NewBatch()
	defer batch.Release()
	batch.Set(membershipKey, raw)
	if err := engine.Apply(batch); err != nil {
		return Membership{}, fmt.Errorf("decide view %d: %w", m.View, err)
	}
	return m, engine.Seal(m.View)
}
