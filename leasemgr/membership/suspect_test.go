package membership

import (
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
)

// beat lets members renew twice a second for a time, each with what it cannot reach,
// and returns the names of those that were asked to leave.
func (b *bed) beat(d time.Duration, cut map[lease.Member][]lease.Member) (losers []string) {
	b.t.Helper()
	for end := b.now + d; b.now < end; {
		b.pass(500 * ms)
		for _, x := range b.members() {
			far, heard := cut[x.Member]
			if !heard {
				continue
			}
			s, extended, loser := b.core.Renew(x.Member, 0, far, b.now)
			if s == In && extended == b.core.Yields(x.Member) {
				b.t.Errorf("%s: extended %t, has to leave %t", x.Name, extended, !extended)
			}
			if loser != nil {
				losers = append(losers, loser.Name)
			}
		}
	}
	return losers
}

type links = map[lease.Member][]lease.Member

// TestCutLinkEndsOneMembership: of two members without a link between them the
// younger one goes, when it says so or by its time, and is not back at once.
func TestCutLinkEndsOneMembership(t *testing.T) {
	for _, leaves := range []bool{true, false} {
		b := newBed(t)
		one, two, three := b.join(instance("one", 1)), b.join(instance("two", 1)), b.join(instance("three", 1))
		cut := links{one: nil, two: {three}, three: nil} // one way is enough
		if losers := b.beat(time.Second, cut); len(losers) != 0 {
			t.Fatalf("%v have to leave at once", losers)
		}
		if losers := b.beat(time.Second, cut); len(losers) != 1 || losers[0] != "three" {
			t.Fatalf("%v have to leave", losers)
		}
		if leaves {
			if s, err := b.core.Leave(three, b.now); s != Waiting || err != nil {
				t.Fatal(s, err)
			}
			b.pass(50 * ms)
		} else if losers := b.beat(3500*ms, cut); len(losers) != 0 {
			t.Fatalf("%v have to leave as well", losers)
		}
		if s := b.core.Standing(three); s != Out || b.core.Standing(one) != In || b.core.Standing(two) != In {
			t.Fatalf("the one that had to leave is %d", s)
		}
		if e := b.refused(instance("three", 2), base.Unavailable); e.RetryAfter < 4*time.Second || e.RetryAfter > 6*time.Second+1 {
			t.Errorf("back after %v", e.RetryAfter)
		}
		alive := links{one: nil, two: nil}
		b.beat(6*time.Second, alive)
		again := b.join(instance("three", 2))
		b.beat(2500*ms, links{one: nil, two: {again}, again: nil})
		if _, err := b.core.Leave(again, b.now); err != nil {
			t.Fatal(err)
		}
		b.pass(50 * ms)
		if e := b.refused(instance("three", 3), base.Unavailable); e.RetryAfter < 11*time.Second {
			t.Errorf("the second time, back after %v", e.RetryAfter)
		}
	}
}

// TestIsolatedMemberGoes: who has no link to two others goes, though it was there
// first.
func TestIsolatedMemberGoes(t *testing.T) {
	b := newBed(t)
	one, two, three := b.join(instance("one", 1)), b.join(instance("two", 1)), b.join(instance("three", 1))
	losers := b.beat(10*time.Second, links{one: {two, three}, two: {one}, three: {one}})
	if len(losers) != 1 || losers[0] != "one" || b.core.Standing(one) != Out || len(b.members()) != 2 {
		t.Errorf("%v had to leave, %v are members", losers, b.members())
	}
}

// TestComplaintsThatCostNothing: of what is over soon, of one that is not heard and
// goes by itself, of members that are gone, and of oneself.
func TestComplaintsThatCostNothing(t *testing.T) {
	for name, cut := range map[string]func(one, two, gone lease.Member) []links{
		"over soon": func(one, two, _ lease.Member) []links {
			broken, whole := links{one: {two}, two: {one}}, links{one: nil, two: nil}
			return []links{broken, broken, whole}
		},
		"not heard": func(one, two, _ lease.Member) []links {
			return []links{{one: {two}}, {one: {two}}, {one: {two}}, {one: {two}}, {one: {two}}}
		},
		"gone":    func(one, two, gone lease.Member) []links { return []links{{one: {gone}, two: {gone}}} },
		"oneself": func(one, two, _ lease.Member) []links { return []links{{one: {one}, two: {two}}} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			one, two := b.join(instance("one", 1)), b.join(instance("two", 1))
			steps := cut(one, two, lease.Member{Worker: 7, Incarnation: 3})
			for i := range 12 {
				if losers := b.beat(500*ms, steps[i%len(steps)]); len(losers) > 0 {
					t.Fatalf("step %d: %v have to leave", i, losers)
				}
			}
			if name == "not heard" && b.core.Standing(two) != Out {
				t.Error("it did not go by itself")
			}
		})
	}
}
