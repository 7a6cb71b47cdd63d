package leasemgr_test

import (
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
)

func admit(t *testing.T, engine store.Engine, worker string) leasemgr.Membership {
	t.Helper()
	m, err := leasemgr.Admit(engine, worker)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func closeEngine(t *testing.T, engine *pebble.Engine) {
	t.Helper()
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
}

// appendBatch tries to commit as a worker of a view does.
func appendBatch(engine store.Engine, view base.View) error {
	batch := engine.NewBatch()
	defer batch.Release()
	batch.Set([]byte("dt\x00k"), []byte("x"))
	_, err := engine.Append(view, batch)
	return err
}

// TestAdmit starts a worker again and again, on one store and on a store that
// is opened anew: views and incarnations grow, the store is sealed for the view,
// and the record is what Admit returned.
func TestAdmit(t *testing.T) {
	fs := vfs.NewMem()
	engine := openEngine(t, fs)
	defer func() { closeEngine(t, engine) }()
	if m, err := leasemgr.ReadMembership(engine); err != nil || m.View != 0 || len(m.Members) != 0 {
		t.Errorf("a new store has the membership %+v, %v", m, err)
	}
	for start := range uint64(5) {
		if start == 3 {
			closeEngine(t, engine)
			engine = openEngine(t, fs)
		}
		m := admit(t, engine, "w")
		if uint64(m.View) != start+1 || !maps.Equal(m.Members, map[string]uint64{"w": start + 1}) {
			t.Errorf("start %d: %+v", start+1, m)
		}
		if engine.Sealed() != m.View {
			t.Errorf("start %d: view %d and the store is sealed for %d", start+1, m.View, engine.Sealed())
		}
		if back, err := leasemgr.ReadMembership(engine); err != nil || back.View != m.View || !maps.Equal(back.Members, m.Members) {
			t.Errorf("start %d: the record is %+v, %v, want %+v", start+1, back, err, m)
		}
	}
}

// TestAdmitFencesThePredecessor shows that a worker of an older view, which
// does not know that it was replaced, cannot commit any more.
func TestAdmitFencesThePredecessor(t *testing.T) {
	engine := openEngine(t, vfs.NewMem())
	defer closeEngine(t, engine)
	first := admit(t, engine, "w")
	if err := appendBatch(engine, first.View); err != nil {
		t.Fatal(err)
	}
	second := admit(t, engine, "w")
	if err := appendBatch(engine, first.View); base.KindOf(err) != base.Unavailable || err == nil {
		t.Errorf("a batch of the old view: %v, want a refusal of kind unavailable", err)
	}
	if err := appendBatch(engine, second.View); err != nil {
		t.Errorf("a batch of the new view: %v", err)
	}
}

// TestAdmitAfterAHigherSeal covers a store that was sealed for a view that the
// record does not know: the new view is above both.
func TestAdmitAfterAHigherSeal(t *testing.T) {
	engine := openEngine(t, vfs.NewMem())
	defer closeEngine(t, engine)
	admit(t, engine, "w")
	if err := engine.Seal(41); err != nil {
		t.Fatal(err)
	}
	if m := admit(t, engine, "w"); m.View != 42 || m.Members["w"] != 2 {
		t.Errorf("%+v, want view 42, incarnation 2", m)
	}
}

// TestIncarnationsNeverReturn replaces a worker by another and takes it back:
// an incarnation counts the starts of a worker, so none may have the number of
// an earlier one.
func TestIncarnationsNeverReturn(t *testing.T) {
	engine := openEngine(t, vfs.NewMem())
	defer closeEngine(t, engine)
	type incarnation struct {
		worker string
		n      uint64
	}
	seen := map[incarnation]base.View{}
	var last base.View
	for _, worker := range []string{"a", "b", "a", "a", "b"} {
		m := admit(t, engine, worker)
		if m.View <= last {
			t.Errorf("view %d follows view %d", m.View, last)
		}
		last = m.View
		if _, member := m.Members[worker]; !member || len(m.Members) != 1 {
			t.Errorf("%s was admitted and the members are %v", worker, m.Members)
		}
		now := incarnation{worker, m.Members[worker]}
		if view, double := seen[now]; double {
			t.Errorf("in view %d worker %s has incarnation %d, which it had in view %d", m.View, worker, now.n, view)
		}
		seen[now] = m.View
	}
}

// TestAdmitRefusesAnUnreadableRecord shows that a record that cannot be read is
// not taken for a new store, whose views would begin again.
func TestAdmitRefusesAnUnreadableRecord(t *testing.T) {
	engine := openEngine(t, vfs.NewMem())
	defer closeEngine(t, engine)
	batch := engine.NewBatch()
	defer batch.Release()
	batch.Set(store.MetaKey("membership"), []byte("{"))
	if err := engine.Apply(batch); err != nil {
		t.Fatal(err)
	}
	if m, err := leasemgr.Admit(engine, "w"); err == nil {
		t.Errorf("admitted as %+v", m)
	}
	if engine.Sealed() != 0 {
		t.Errorf("the store was sealed for view %d", engine.Sealed())
	}
}
