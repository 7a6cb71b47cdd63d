package txn

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// modelPass is a pass in the model of a gate, in order of arrival.
type modelPass struct {
	pass          *Pass
	scans, writes []string
}

func (p modelPass) meets(q modelPass) bool {
	for _, prefix := range p.scans {
		if slices.ContainsFunc(q.writes, func(key string) bool { return strings.HasPrefix(key, prefix) }) {
			return true
		}
	}
	for _, prefix := range q.scans {
		if slices.ContainsFunc(p.writes, func(key string) bool { return strings.HasPrefix(key, prefix) }) {
			return true
		}
	}
	return false
}

// gateMachine drives a Gate and its model, the passes in order of arrival. A
// pass is inside if it meets none of those before it.
type gateMachine struct {
	gate   Gate
	passes []modelPass
	woken  []*Pass
}

func (m *gateMachine) inside(i int) bool {
	return !slices.ContainsFunc(m.passes[:i], m.passes[i].meets)
}

func drawWords(t *rapid.T, what string, words ...string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(words), 0, 2, rapid.ID[string]).Draw(t, what)
}

func drawScans(t *rapid.T) []string {
	return drawWords(t, "scans", "", "a", "ab", "b", "c/", "d", "e", "f")
}

func drawWrites(t *rapid.T) []string {
	return drawWords(t, "writes", "a", "ab", "abc", "b", "c", "c/1", "d1", "e1", "f1")
}

// pick returns a pass that is inside, or one that is queued; -1 if there is
// none, and then the action does nothing.
func (m *gateMachine) pick(t *rapid.T, inside bool) int {
	var places []int
	for i := range m.passes {
		if m.inside(i) == inside {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return -1
	}
	return rapid.SampledFrom(places).Draw(t, "pass")
}

func (m *gateMachine) enter(t *rapid.T) {
	p := &Pass{Scans: drawScans(t), Writes: drawWrites(t)}
	wait := rapid.Bool().Draw(t, "wait")
	m.passes = append(m.passes, modelPass{p, slices.Clone(p.Scans), slices.Clone(p.Writes)})
	want := Granted
	switch inside := m.inside(len(m.passes) - 1); {
	case !inside && wait:
		want = Queued
	case !inside:
		want = Refused
		m.passes = m.passes[:len(m.passes)-1]
	}
	if got := m.gate.Enter(p, wait); got != want {
		t.Fatalf("enter with scans %q and writes %q: %s, want %s", p.Scans, p.Writes, gateWord(got), gateWord(want))
	}
	m.woken = nil
}

func (m *gateMachine) extend(t *rapid.T) {
	i := m.pick(t, true)
	if i < 0 {
		return
	}
	p := &m.passes[i]
	more := modelPass{scans: drawScans(t), writes: drawWrites(t)}
	want := Granted
	for j, q := range m.passes {
		if j != i && more.meets(q) {
			want = Refused
		}
	}
	if got := m.gate.Extend(p.pass, more.scans, more.writes); got != want {
		t.Fatalf("extension by scans %q and writes %q: %s, want %s", more.scans, more.writes, gateWord(got), gateWord(want))
	}
	if want == Granted {
		p.scans, p.writes = append(p.scans, more.scans...), append(p.writes, more.writes...)
	}
	m.woken = nil
}

// drop takes a pass out of the model and returns whom that lets in.
func (m *gateMachine) drop(i int) (woken []*Pass) {
	var before []bool
	for j := range m.passes {
		before = append(before, m.inside(j))
	}
	m.passes, before = slices.Delete(m.passes, i, i+1), slices.Delete(before, i, i+1)
	for j, p := range m.passes {
		if m.inside(j) && !before[j] {
			woken = append(woken, p.pass)
		}
	}
	return woken
}

func (m *gateMachine) leave(t *rapid.T) {
	if i := m.pick(t, true); i >= 0 {
		m.leaveAt(t, i)
	}
}

func (m *gateMachine) leaveAt(t *rapid.T, i int) {
	p := m.passes[i].pass
	want := m.drop(i)
	if m.woken = m.gate.Leave(p, nil); !slices.Equal(m.woken, want) {
		t.Fatalf("leaving lets in %d, want %d", len(m.woken), len(want))
	}
	if p.Inside() {
		t.Fatal("who has left is inside")
	}
}

func (m *gateMachine) cancel(t *rapid.T) {
	late := rapid.Bool().Draw(t, "too late")
	i := m.pick(t, late)
	if i < 0 {
		return
	}
	p := m.passes[i].pass
	if late {
		if woken, cancelled := m.gate.Cancel(p, nil); cancelled || len(woken) > 0 {
			t.Fatalf("cancel of a pass that is inside: cancelled %v, lets in %d", cancelled, len(woken))
		}
		return
	}
	want := m.drop(i)
	woken, cancelled := m.gate.Cancel(p, nil)
	if m.woken = woken; !cancelled || !slices.Equal(woken, want) {
		t.Fatalf("cancel: %v, lets in %d, want %d", cancelled, len(woken), len(want))
	}
}

func (m *gateMachine) check(t *rapid.T) {
	for i, p := range m.passes {
		if p.pass.Inside() != m.inside(i) {
			t.Fatalf("pass %d is inside: %v, want %v", i, p.pass.Inside(), m.inside(i))
		}
		if !slices.Equal(p.pass.Scans, p.scans) || !slices.Equal(p.pass.Writes, p.writes) {
			t.Fatalf("pass %d has scans %q and writes %q, want %q and %q", i, p.pass.Scans, p.pass.Writes, p.scans, p.writes)
		}
		for _, q := range m.passes[:i] {
			if p.pass.Inside() && q.pass.Inside() && p.meets(q) {
				t.Fatalf("inside at once: scans %q writes %q, and scans %q writes %q", p.scans, p.writes, q.scans, q.writes)
			}
		}
	}
	// A pass that neither scans nor writes is nowhere, so the gate may forget it.
	busy := slices.ContainsFunc(m.passes, func(p modelPass) bool { return len(p.scans)+len(p.writes) > 0 })
	if m.gate.Idle() == busy {
		t.Fatalf("idle is %v with %d passes", m.gate.Idle(), len(m.passes))
	}
}

// TestGateAgainstModel runs random passes through one gate, and then lets
// everybody leave: a pass that is still queued then has lost its wake-up.
func TestGateAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &gateMachine{}
		t.Repeat(map[string]func(*rapid.T){
			"enter": m.enter, "extend": m.extend, "leave": m.leave, "cancel": m.cancel, "": m.check,
		})
		for len(m.passes) > 0 {
			i := slices.IndexFunc(m.passes, func(p modelPass) bool { return p.pass.Inside() })
			if i < 0 {
				t.Fatalf("%d passes wait for nobody", len(m.passes))
			}
			m.leaveAt(t, i)
			m.check(t)
		}
	})
}
