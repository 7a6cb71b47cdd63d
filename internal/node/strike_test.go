package node_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/leasemgr/membership"
)

const (
	// roundsEnv is how many faults of each kind are made; make crash sets it. Only
	// then the times are judged.
	roundsEnv = "TENURE_TEST_ROUNDS"
	// seedEnv chooses the victims and times of the faults, as the same seed did.
	seedEnv = "TENURE_TEST_SEED"
	// returnWithin is how long after the time-out what a fault has affected may be
	// away.
	returnWithin = time.Second
	// pauseWithin is how long what it has not affected may not answer. A view changes
	// in some hundred milliseconds, a slow disk may take longer; what waits for the
	// victim waits for longer than that.
	pauseWithin = 2 * time.Second
)

// fault is one fault of a cluster.
type fault struct {
	kind string // of the summary
	what string
	// make makes the fault, mend ends it, lasts after make has returned.
	make, mend func()
	lasts      time.Duration
	// hits says what the fault does to a probe of a key that lives at a worker.
	hits func(p *probe, at string) effect
	// fromMend says that nothing can be back before the end of the fault, so that
	// time counts from there.
	fromMend bool
	// heard is how long after the fault the leasemgr may still hear of the victim: the
	// time-out begins then.
	heard time.Duration
}

// effect is what a fault does to a probe.
type effect int

const (
	// spared is what has nothing to do with the victim.
	spared effect = iota
	// affected is what the rest of the cluster has to take over.
	affected
	// lost is what nobody else can answer: it goes through a gateway that is gone.
	lost
)

// renewal is how long a member waits for the answer to a renewal before it sends
// the next one. If only the answers are lost, the next one arrives, too.
func renewal() time.Duration {
	o := membership.Options{}
	o.EnsureDefaults()
	return o.TTL / 3
}

// figures are what the rounds of one kind of fault have shown.
type figures struct {
	kind   string
	rounds int
	// wait is the longest time that affected keys were away, gap that keys which
	// were spared did not answer, slowest the longest wait of the load for an answer
	// with all its retries.
	wait, gap, slowest time.Duration
	// late are rounds in which wait or gap were too long.
	late []string
}

// hits of a fault whose victim is a whole process. What the leasemgr holds up is
// every write, and every read when memberships may have expired.
func hitsVictim(victim *process, lasts time.Duration) func(p *probe, at string) effect {
	o := membership.Options{}
	o.EnsureDefaults()
	return func(p *probe, at string) effect {
		switch {
		case p.gateway == victim.name:
			return lost
		case at == victim.name, victim.role == "leasemgr" && (p.write || lasts > o.TTL/2):
			return affected
		}
		return spared
	}
}

// killing kills a process and starts it again: some come back before they are
// missed, some after.
func (c *faultyCluster) killing(victim *process) *fault {
	lasts := time.Duration(c.rng.IntN(5000)) * time.Millisecond
	return &fault{
		kind: "kill -9", what: fmt.Sprintf("%s, down for %v", victim.name, lasts), lasts: lasts,
		make: victim.kill, mend: victim.start, hits: hitsVictim(victim, lasts), fromMend: victim == c.control,
	}
}

// stopping stops a process for longer than a membership lasts.
func (c *faultyCluster) stopping(victim *process) *fault {
	lasts := 4*time.Second + time.Duration(c.rng.IntN(2000))*time.Millisecond
	return &fault{
		kind: "SIGSTOP, SIGCONT", what: fmt.Sprintf("%s, for %v", victim.name, lasts), lasts: lasts,
		make: func() { victim.signal(syscall.SIGSTOP) }, mend: func() { victim.signal(syscall.SIGCONT) },
		hits: hitsVictim(victim, lasts), fromMend: victim == c.control,
	}
}

// deck deals every card once, in any order, before it deals one again.
type deck[T any] struct{ all, left []T }

func (d *deck[T]) deal(rng *rand.Rand) T {
	if len(d.left) == 0 {
		d.left = slices.Clone(d.all)
		rng.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	card := d.left[0]
	d.left = d.left[1:]
	return card
}

// victim is any process of a role.
func (c *faultyCluster) victim(role string) *process {
	of := slices.DeleteFunc(c.all(), func(p *process) bool { return p.role != role })
	return of[c.rng.IntN(len(of))]
}

// answered is how many requests of the load were answered so far.
func (c *faultyCluster) answered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.transfers) + len(c.history)
}

// settle waits until the load has been answered many times again, and every probe.
func (c *faultyCluster) settle() {
	c.t.Helper()
	began, before := time.Now(), c.answered()
	waits := func(p *probe) bool { return p.since(began) < 3 }
	for c.answered() < before+20*faultClients || slices.ContainsFunc(c.probes, waits) {
		for _, p := range c.all() {
			if !p.alive() {
				c.t.Fatalf("%s has ended by itself", p.name)
			}
		}
		if c.t.Failed() {
			c.t.FailNow()
		}
		if time.Since(began) > time.Minute {
			i := slices.IndexFunc(c.probes, waits)
			if i < 0 {
				c.t.Fatal("the cluster does not answer any more")
			}
			c.t.Fatalf("the cluster does not answer %v any more", c.probes[i])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// strike makes a fault, waits until the cluster is well again, and measures.
func (c *faultyCluster) strike(round int, f *fault) {
	c.t.Helper()
	at := c.locate()
	c.mu.Lock()
	c.slowest = 0
	c.mu.Unlock()
	for _, p := range c.probes {
		p.begin()
	}
	struck := time.Now()
	f.make()
	time.Sleep(f.lasts)
	f.mend()
	mended := time.Now()
	c.settle()
	c.measure(round, f, at, struck, mended)
}

// measure takes the figures of a round.
func (c *faultyCluster) measure(round int, f *fault, at map[string]string, struck, mended time.Time) {
	c.t.Helper()
	i := slices.IndexFunc(c.figures, func(s figures) bool { return s.kind == f.kind })
	if i < 0 {
		i = len(c.figures)
		c.figures = append(c.figures, figures{kind: f.kind})
	}
	var wait, gap time.Duration
	var longWait, longGap string
	from := struck
	if f.fromMend {
		from = mended
	}
	for _, p := range c.probes {
		switch f.hits(p, at[p.key]) {
		case spared:
			if d, began := p.longest(struck); d > gap {
				gap, longGap = d, fmt.Sprintf("%v at %s, after %v", p, at[p.key], began.Sub(struck).Round(time.Millisecond))
			}
		case affected:
			if d, began := p.longest(from); d > wait {
				wait, longWait = d, fmt.Sprintf("%v at %s, after %v", p, at[p.key], began.Sub(struck).Round(time.Millisecond))
			}
		case lost:
		}
	}
	c.mu.Lock()
	slowest := c.slowest
	c.mu.Unlock()
	s := &c.figures[i]
	s.rounds++
	s.wait, s.gap, s.slowest = max(s.wait, wait), max(s.gap, gap), max(s.slowest, slowest)
	line := fmt.Sprintf("round %d: %s: %s: affected keys away for %v (%s), the others silent for %v (%s); %d requests so far, slowest %v",
		round, f.kind, f.what, wait.Round(time.Millisecond), longWait, gap.Round(time.Millisecond), longGap, c.answered(), slowest.Round(time.Millisecond))
	c.t.Log(line)
	o := membership.Options{}
	o.EnsureDefaults()
	if wait > f.heard+o.Timeout()+returnWithin || gap > pauseWithin {
		s.late = append(s.late, line)
	}
}

// shortRounds is how many faults a test makes if roundsEnv is not set.
const shortRounds = 3

// roundsOf is how many faults of each kind are to be made, if that was said.
func roundsOf() (n int, long bool) {
	n, err := strconv.Atoi(os.Getenv(roundsEnv))
	return n, err == nil
}

// beside lets a short test of faults, which mostly waits, run beside others; where
// the times are judged it has the machine to itself.
func beside(t *testing.T) {
	if _, long := roundsOf(); !long {
		t.Parallel()
	}
}

// endure puts a cluster under load, makes faults of kinds, one after another, and
// checks what the load has seen.
func (c *faultyCluster) endure(kinds ...func() *fault) {
	rounds, long := roundsOf()
	rounds *= len(kinds)
	if !long {
		rounds = shortRounds
	}
	deal := deck[func() *fault]{all: kinds}
	for client := range faultClients {
		c.load.Go(func() { c.run(client) })
	}
	for _, p := range c.probes {
		c.load.Go(func() { p.run(c.client, c.urlOf(p), c.stop) })
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			close(c.stop)
			c.load.Wait()
		}
	}
	defer stop()
	c.settle()
	for round := range rounds {
		c.strike(round, deal.deal(c.rng)())
	}
	stop()
	c.checkAll()
	c.report(long)
}

// report logs the figures by kind, and judges them if the rounds were many.
func (c *faultyCluster) report(judge bool) {
	c.t.Helper()
	var table strings.Builder
	fmt.Fprintf(&table, "%-28s %6s %14s %14s %14s", "fault", "rounds", "affected away", "others silent", "slowest")
	for _, s := range c.figures {
		fmt.Fprintf(&table, "\n%-28s %6d %14v %14v %14v", s.kind, s.rounds, s.wait.Round(time.Millisecond), s.gap.Round(time.Millisecond), s.slowest.Round(time.Millisecond))
	}
	c.t.Log(table.String())
	for _, s := range c.figures {
		for _, line := range s.late {
			if judge {
				c.t.Errorf("too long: %s", line)
			} else {
				c.t.Logf("long: %s", line)
			}
		}
	}
}

// TestFaultsInCluster kills and stops processes of a cluster under load, one after
// another. Every request is repeated under its key until it is answered. In the end
// the history of the lists is strictly serializable, every transfer had one effect,
// and each replays its answer.
func TestFaultsInCluster(t *testing.T) {
	beside(t)
	c := startFaulty(t, loopback())
	roles := []string{"worker", "gateway", "leasemgr"}
	killed, stopped := deck[string]{all: roles}, deck[string]{all: roles}
	c.endure(
		func() *fault { return c.killing(c.victim(killed.deal(c.rng))) },
		func() *fault { return c.stopping(c.victim(stopped.deal(c.rng))) },
	)
}
