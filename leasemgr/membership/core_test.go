package membership

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
)

const ms = time.Millisecond

// instance is the n-th start of a worker.
func instance(name string, n byte) Instance {
	return Instance{Name: name, Nonce: Nonce{n, 1}, Address: name + ".example:1", Provider: "tcp"}
}

// bed drives a core as a shell whose disk and store take no time.
type bed struct {
	t     *testing.T
	core  *Core
	now   time.Duration
	last  Record
	views []*Decision
}

func newBed(t *testing.T) *bed {
	b := &bed{t: t, now: time.Hour}
	b.restart(Record{}, 0)
	return b
}

// restart makes a core of a record, which travels as JSON.
func (b *bed) restart(r Record, sealed base.View) {
	b.t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		b.t.Fatal(err)
	}
	var back Record
	if err := json.Unmarshal(raw, &back); err != nil {
		b.t.Fatal(err)
	}
	if b.core, err = New(Options{}, back, sealed, b.now); err != nil {
		b.t.Fatal(err)
	}
	b.last = r
	if b.core.Unpublished() {
		b.core.Published(b.now)
	}
}

// pass lets time pass, in steps as small as Next wants them, and carries out
// what is decided.
func (b *bed) pass(d time.Duration) {
	b.t.Helper()
	for end := b.now + d; ; {
		decision, err := b.core.Tick(b.now)
		if err != nil {
			b.t.Fatal(err)
		}
		if decision != nil {
			b.core.Durable()
			b.last = decision.Record
			b.views = append(b.views, decision)
			b.core.Published(b.now)
		}
		next, any := b.core.Next()
		if !any || next > end {
			b.now = end
			return
		}
		b.now = max(next, b.now)
	}
}

// join admits an instance.
func (b *bed) join(i Instance) lease.Member {
	b.t.Helper()
	for range 2 {
		m, standing, err := b.core.Join(i, b.now)
		if err != nil {
			b.t.Fatalf("join %s: %v", i.Name, err)
		}
		if standing == In {
			return m
		}
		b.pass(50 * ms)
	}
	b.t.Fatalf("%s is not admitted after the window", i.Name)
	return lease.Member{}
}

// refused checks the kind of error of a Join.
func (b *bed) refused(i Instance, kind base.Kind) *base.Error {
	b.t.Helper()
	m, standing, err := b.core.Join(i, b.now)
	var e *base.Error
	if !errors.As(err, &e) || e.Kind != kind {
		b.t.Fatalf("join %s: %v %v, %v; want an error of kind %v", i.Name, m, standing, err, kind)
	}
	return e
}

// members are the names, numbers and incarnations in the last view.
func (b *bed) members() []Member { return b.core.Current().Members }

func TestJoinsInAWindowMakeOneView(t *testing.T) {
	b := newBed(t)
	for _, name := range []string{"a", "b", "c"} {
		if _, standing, err := b.core.Join(instance(name, 1), b.now); standing != Waiting || err != nil {
			t.Fatalf("%s: %v, %v", name, standing, err)
		}
		b.pass(15 * ms)
	}
	if len(b.views) != 0 {
		t.Fatal("decided before the window ended")
	}
	b.pass(5 * ms)
	want := []Member{
		{Member: lease.Member{Worker: 1, Incarnation: 1}, Name: "a", Address: "a.example:1", Provider: "tcp"},
		{Member: lease.Member{Worker: 2, Incarnation: 1}, Name: "b", Address: "b.example:1", Provider: "tcp"},
		{Member: lease.Member{Worker: 3, Incarnation: 1}, Name: "c", Address: "c.example:1", Provider: "tcp"},
	}
	if len(b.views) != 1 || b.views[0].View != 1 || !reflect.DeepEqual(b.views[0].Members, want) {
		t.Errorf("views %+v, want one with %+v", b.views, want)
	}
}

func TestRepeatedJoinReturnsTheSameAdmission(t *testing.T) {
	b := newBed(t)
	first := b.join(instance("a", 1))
	for range 3 {
		b.pass(100 * ms)
		if again := b.join(instance("a", 1)); again != first {
			t.Errorf("admitted as %v, then as %v", first, again)
		}
	}
	if len(b.views) != 1 {
		t.Errorf("%d views", len(b.views))
	}
	other := instance("a", 1)
	other.Address = "elsewhere:1"
	b.refused(other, base.Invalid)
}

// TestRepeatedJoinRenews: the answer to a repeated Join gives the member a TTL
// from its sending, so it must not be out before.
func TestRepeatedJoinRenews(t *testing.T) {
	b := newBed(t)
	m := b.join(instance("a", 1))
	b.pass(2 * time.Second)
	b.join(instance("a", 1))
	b.pass(3 * time.Second)
	if s := b.core.Standing(m); s != In {
		t.Errorf("standing %d, 3 s after a repeated join", s)
	}
}

// TestExpiry looks at both sides of the time-out.
func TestExpiry(t *testing.T) {
	o := Options{}
	o.EnsureDefaults()
	if o.Timeout() != 3230*ms {
		t.Fatalf("the time-out is %v, want 3 s * 1.01 + 200 ms", o.Timeout())
	}
	b := newBed(t)
	m := b.join(instance("a", 1))
	b.pass(o.Timeout())
	if s, _, _ := b.core.Renew(m, 0, nil, b.now); s != In {
		t.Fatalf("standing %d at the time-out", s)
	}
	b.pass(o.Timeout())
	if s, _, _ := b.core.Renew(m, 0, nil, b.now+1); s != Waiting {
		t.Fatalf("standing %d after the time-out", s)
	}
	b.pass(51 * ms)
	if s, _, _ := b.core.Renew(m, 0, nil, b.now); s != Out || len(b.members()) != 0 {
		t.Errorf("standing %d, members %v", s, b.members())
	}
}

// TestJoinResurrectsEvicted is the story of this name in lease_protocol.md: a
// Join that was repeated, and delayed, arrives after its instance was evicted.
func TestJoinResurrectsEvicted(t *testing.T) {
	b := newBed(t)
	b.join(instance("a", 1))
	b.pass(5 * time.Second)
	b.refused(instance("a", 1), base.Precondition)
	second := b.join(instance("a", 2))
	if second != (lease.Member{Worker: 1, Incarnation: 2}) {
		t.Errorf("the second instance is %v", second)
	}
	b.refused(instance("a", 1), base.Precondition)
	b.restart(b.last, 0)
	b.refused(instance("a", 1), base.Precondition)
	for n := byte(3); n < RememberedNonces+2; n++ {
		b.pass(5 * time.Second)
		b.join(instance("a", n))
	}
	b.refused(instance("a", 1), base.Precondition)
	if past := b.last.Workers["a"].Past; len(past) != RememberedNonces {
		t.Errorf("%d nonces are remembered", len(past))
	}
}

// TestForgottenNonceBringsNoIncarnationBack: beyond the bound a late Join costs
// a view, not safety.
func TestForgottenNonceBringsNoIncarnationBack(t *testing.T) {
	b := newBed(t)
	for n := byte(1); n <= RememberedNonces+1; n++ {
		b.join(instance("a", n))
		b.pass(5 * time.Second)
	}
	if m := b.join(instance("a", 1)); m.Incarnation != RememberedNonces+2 {
		t.Errorf("admitted as %v", m)
	}
	b.pass(5 * time.Second)
	if len(b.members()) != 0 {
		t.Errorf("members are %v", b.members())
	}
}

// TestTwoLiveInstances: the second waits until the first has expired, and then
// takes its place in a single view.
func TestTwoLiveInstances(t *testing.T) {
	b := newBed(t)
	first := b.join(instance("a", 1))
	b.pass(time.Second)
	e := b.refused(instance("a", 2), base.Unavailable)
	if !strings.Contains(e.Detail, "a.example:1") || e.RetryAfter != 2230*ms+1 {
		t.Errorf("%v, retry after %v", e, e.RetryAfter)
	}
	b.now += e.RetryAfter
	b.core.now = b.now - 1 // the process was not paused
	if _, standing, err := b.core.Join(instance("a", 2), b.now); standing != Waiting || err != nil {
		t.Fatalf("%v, %v", standing, err)
	}
	if s, _, _ := b.core.Renew(first, 0, nil, b.now); s != Waiting {
		t.Errorf("the overdue instance is %d", s)
	}
	b.refused(instance("a", 3), base.Unavailable)
	second := b.join(instance("a", 2))
	if second.Incarnation != 2 || len(b.views) != 2 || b.core.Standing(first) != Out {
		t.Errorf("%v in %d views; the first is %d", second, len(b.views), b.core.Standing(first))
	}
}

func TestLeave(t *testing.T) {
	b := newBed(t)
	a, other := b.join(instance("a", 1)), b.join(instance("b", 1))
	for range 2 {
		if s, err := b.core.Leave(a, b.now); s != Waiting || err != nil {
			t.Fatalf("%d, %v", s, err)
		}
	}
	if s, _, _ := b.core.Renew(a, 0, nil, b.now); s != Waiting {
		t.Errorf("a leaving member renews: %d", s)
	}
	b.refused(instance("a", 1), base.Precondition)
	if _, standing, err := b.core.Join(instance("a", 2), b.now); standing != Waiting || err != nil {
		t.Fatalf("the next instance: %d, %v", standing, err)
	}
	b.pass(50 * ms)
	next := b.join(instance("a", 2))
	if next != (lease.Member{Worker: a.Worker, Incarnation: 2}) || len(b.views) != 3 || b.core.Standing(other) != In {
		t.Errorf("replaced by %v, in %d views", next, len(b.views))
	}
	if s, err := b.core.Leave(a, b.now); s != Out || err != nil {
		t.Errorf("leave again: %d, %v", s, err)
	}
	if s := b.core.Standing(next); s != In {
		t.Errorf("the late announcement of the first removed the second: %d", s)
	}
	for _, nobody := range []lease.Member{{}, {Worker: 1}, {Worker: 1, Incarnation: 3}, {Worker: 9, Incarnation: 1}} {
		if _, err := b.core.Leave(nobody, b.now); base.KindOf(err) != base.NotFound {
			t.Errorf("leave of %v: %v", nobody, err)
		}
		if s, _, _ := b.core.Renew(nobody, 0, nil, b.now); s != Out {
			t.Errorf("renewal of %v: %d", nobody, s)
		}
	}
}

// TestDecisionUnderWay: nobody hears of a decision before it is durable, and the
// admitted not before it is published.
func TestDecisionUnderWay(t *testing.T) {
	b := newBed(t)
	old := b.join(instance("a", 1))
	if _, err := b.core.Leave(old, b.now); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.core.Join(instance("b", 1), b.now); err != nil {
		t.Fatal(err)
	}
	b.now += 50 * ms
	d, err := b.core.Tick(b.now)
	if err != nil || d == nil {
		t.Fatal(d, err)
	}
	standings := func() (s [3]Standing) {
		var err error
		s[0], _, _ = b.core.Renew(old, 0, nil, b.now)
		if s[1], err = b.core.Leave(old, b.now); err != nil {
			t.Fatal(err)
		}
		if _, s[2], err = b.core.Join(instance("b", 1), b.now); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := standings(); got != [3]Standing{Waiting, Waiting, Waiting} {
		t.Errorf("before it is durable: %v", got)
	}
	b.core.Durable()
	if got := standings(); got != [3]Standing{Out, Waiting, Waiting} {
		t.Errorf("before it is published: %v", got)
	}
	if again, err := b.core.Tick(b.now + time.Second); again != nil || err != nil {
		t.Errorf("a second decision before the first is published: %v, %v", again, err)
	}
	b.core.Published(b.now)
	if got := standings(); got != [3]Standing{Out, Out, In} {
		t.Errorf("after: %v", got)
	}
}

// TestSlowSeal: who is admitted by a view that was long in coming has a TTL from
// its publication.
func TestSlowSeal(t *testing.T) {
	b := newBed(t)
	if _, _, err := b.core.Join(instance("a", 1), b.now); err != nil {
		t.Fatal(err)
	}
	b.now += 50 * ms
	if d, err := b.core.Tick(b.now); d == nil || err != nil {
		t.Fatal(d, err)
	}
	b.core.Durable()
	for range 100 {
		b.now += 100 * ms
		if _, err := b.core.Tick(b.now); err != nil {
			t.Fatal(err)
		}
	}
	b.core.Published(b.now)
	m, standing, err := b.core.Join(instance("a", 1), b.now)
	if err != nil || standing != In {
		// It was overdue before it could know that it is a member.
		t.Fatalf("%v, %d, %v", m, standing, err)
	}
}

// TestRestartAndPause: nobody is out for renewals that could not be heard.
func TestRestartAndPause(t *testing.T) {
	for name, silence := range map[string]func(b *bed){
		"restart": func(b *bed) { b.now += time.Hour; b.restart(b.last, 0) },
		"pause":   func(b *bed) { b.now += time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			alive, dead := b.join(instance("a", 1)), b.join(instance("b", 1))
			silence(b)
			b.pass(3 * time.Second)
			if s, _, _ := b.core.Renew(alive, 0, nil, b.now); s != In {
				t.Fatalf("standing %d", s)
			}
			if s := b.core.Standing(dead); s != In {
				t.Fatalf("out before a full TTL has passed: %d", s)
			}
			b.pass(300 * ms)
			if s := b.core.Standing(dead); s != Out {
				t.Errorf("the dead member is %d", s)
			}
			if s, _, _ := b.core.Renew(alive, 0, nil, b.now); s != In {
				t.Errorf("the living member is %d", s)
			}
		})
	}
}

// TestRestartKeepsEverything: numbers, incarnations, nonces and members.
func TestRestartKeepsEverything(t *testing.T) {
	b := newBed(t)
	a := b.join(instance("a", 1))
	b.join(instance("b", 1))
	if _, err := b.core.Leave(a, b.now); err != nil {
		t.Fatal(err)
	}
	b.pass(50 * ms)
	before := b.core.Current()
	b.restart(b.last, 0)
	if after := b.core.Current(); !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	if m := b.join(instance("a", 2)); m != (lease.Member{Worker: a.Worker, Incarnation: 2}) {
		t.Errorf("a came back as %v", m)
	}
	if m := b.join(instance("c", 1)); m.Worker != 3 {
		t.Errorf("c is %v", m)
	}
}

// TestRecordOfOneWorker takes over what a node of one worker has left.
func TestRecordOfOneWorker(t *testing.T) {
	b := newBed(t)
	b.restart(Record{View: 7, Members: map[string]uint64{"w": 5}, Incarnations: map[string]uint64{"w": 5, "v": 2}}, 7)
	if m := b.members(); len(m) != 0 {
		t.Errorf("members are %v", m)
	}
	if m := b.join(instance("w", 1)); m.Incarnation != 6 || b.core.view != 8 {
		t.Errorf("%v in view %d", m, b.core.view)
	}
	if m := b.join(instance("v", 1)); m.Incarnation != 3 {
		t.Errorf("%v", m)
	}
}

// TestRecordOlderThanTheStore: whoever was a member in views that the record
// does not know is not confused with anybody.
func TestRecordOlderThanTheStore(t *testing.T) {
	b := newBed(t)
	old := b.join(instance("a", 1))
	b.restart(b.last, 40)
	if s := b.core.Standing(old); s != Out {
		t.Errorf("a member of a lost time is %d", s)
	}
	b.refused(instance("a", 1), base.Precondition)
	if m := b.join(instance("a", 2)); m.Incarnation != 41 || b.core.view != 41 {
		t.Errorf("%v in view %d", m, b.core.view)
	}
	b.restart(b.last, 41)
	if m := b.join(instance("b", 1)); m.Incarnation != 41 {
		t.Errorf("%v: the number may have had up to 40 incarnations", m)
	}
}

func TestBadRecords(t *testing.T) {
	for name, r := range map[string]Record{
		"number 0":           {Incarnations: map[string]uint64{"a": 1}, Workers: map[string]Worker{"a": {}}},
		"number too large":   {Incarnations: map[string]uint64{"a": 1}, Workers: map[string]Worker{"a": {Number: 4095}}},
		"one number twice":   {Workers: map[string]Worker{"a": {Number: 1}, "b": {Number: 1}}},
		"incarnation beyond": {Incarnations: map[string]uint64{"a": math.MaxUint32 + 1}},
	} {
		if _, err := New(Options{}, r, 0, 0); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestNumbersRunOut: a number passes to another name only when all are used, from
// who left first, and its incarnations go on.
func TestNumbersRunOut(t *testing.T) {
	b := newBed(t)
	name := func(n int) string { return "w" + string(rune('a'+n/256)) + string(rune('Ā'+n%256)) }
	for n := range int(lease.MaxWorker) {
		if _, _, err := b.core.Join(instance(name(n), 1), b.now); err != nil {
			t.Fatal(err)
		}
	}
	b.refused(instance("more", 1), base.Overloaded)
	b.pass(50 * ms)
	b.refused(instance("more", 1), base.Overloaded)
	for _, n := range []lease.Worker{77, 5} {
		if _, err := b.core.Leave(lease.Member{Worker: n, Incarnation: 1}, b.now); err != nil {
			t.Fatal(err)
		}
		b.pass(50 * ms)
	}
	if m := b.join(instance("more", 1)); m != (lease.Member{Worker: 77, Incarnation: 2}) {
		t.Errorf("the new name is %v", m)
	}
	if m := b.join(instance(name(4), 2)); m != (lease.Member{Worker: 5, Incarnation: 2}) {
		t.Errorf("a name that is still known is %v", m)
	}
	b.refused(instance(name(76), 2), base.Overloaded)
	raw, err := json.Marshal(b.last)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the record has %d bytes", len(raw))
}

func TestViewsUsedUp(t *testing.T) {
	b := newBed(t)
	b.restart(Record{View: lease.MaxView - 1}, 0)
	b.join(instance("a", 1))
	if _, _, err := b.core.Join(instance("b", 1), b.now); err != nil {
		t.Fatal(err)
	}
	if d, err := b.core.Tick(b.now + time.Second); err == nil {
		t.Errorf("decided %+v", d)
	}
}

func TestIncarnationsUsedUp(t *testing.T) {
	b := newBed(t)
	b.restart(Record{View: 1, Incarnations: map[string]uint64{"a": math.MaxUint32}}, 0)
	b.refused(instance("a", 1), base.Overloaded)
}

func TestValidation(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, change := range map[string]func(*Instance){
		"no name":       func(i *Instance) { i.Name = "" },
		"long name":     func(i *Instance) { i.Name = long[:65] },
		"odd name":      func(i *Instance) { i.Name = "a\n" },
		"no UTF-8":      func(i *Instance) { i.Name = "\xff" },
		"no nonce":      func(i *Instance) { i.Nonce = Nonce{} },
		"no address":    func(i *Instance) { i.Address = "" },
		"long address":  func(i *Instance) { i.Address = long[:257] },
		"no provider":   func(i *Instance) { i.Provider = "" },
		"long provider": func(i *Instance) { i.Provider = long[:33] },
		"long zone":     func(i *Instance) { i.Zone = long[:65] },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			i := instance("a", 1)
			change(&i)
			b.refused(i, base.Invalid)
			b.pass(time.Second)
			if len(b.views) != 0 || len(b.core.names) != 0 {
				t.Error("it left something behind")
			}
		})
	}
}

func TestState(t *testing.T) {
	b := newBed(t)
	a := b.join(instance("a", 1))
	b.join(instance("b", 1))
	b.pass(100 * ms)
	b.core.Renew(a, 0, nil, b.now)
	b.pass(200 * ms)
	if _, err := b.core.Leave(a, b.now); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.core.Join(instance("c", 1), b.now); err != nil {
		t.Fatal(err)
	}
	view, reports, joining := b.core.State(b.now)
	if view != 2 || len(reports) != 2 || !slices.Equal(joining, []string{"c"}) {
		t.Fatalf("view %d, %+v, %v", view, reports, joining)
	}
	if r := reports[0]; r.Name != "a" || r.Since != 1 || r.Renewed != 200*ms || !r.Leaving {
		t.Errorf("%+v", r)
	}
	if r := reports[1]; r.Name != "b" || r.Since != 2 || r.Renewed != 300*ms || r.Leaving {
		t.Errorf("%+v", r)
	}
}
