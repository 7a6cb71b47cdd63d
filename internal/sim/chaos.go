package sim

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	verbs "github.com/tenure-faas/tenure/rdma/sim"
)

// calmDisk and roughDisk are a disk without faults, and one that is slow at times.
var (
	calmDisk  = DiskFaults{Sync: verbs.Range{Min: 50 * time.Microsecond, Max: time.Millisecond}}
	roughDisk = DiskFaults{
		Sync: verbs.Range{Min: 50 * time.Microsecond, Max: 5 * time.Millisecond}, SlowSync: 0.05, Slow: verbs.Range{Min: 10 * time.Millisecond, Max: time.Second},
		Read: verbs.Range{Max: time.Millisecond},
	}
)

// fault is a kind of fault: do makes one, and mends it before it returns.
type fault struct {
	name string
	do   func(c *chaos, rng *rand.Rand)
}

// faults are all kinds. A seed has about half of them, so that rare combinations
// are met too.
var faults = []fault{
	{"crash", (*chaos).crash}, {"crash", (*chaos).crash},
	{"pause", (*chaos).pause},
	{"cut", (*chaos).cut}, {"cut", (*chaos).cut},
	{"isolate", (*chaos).isolate},
	{"verbs", (*chaos).verbs},
	{"disk", (*chaos).disk},
	{"drain", (*chaos).drain},
}

// chaos makes faults.
type chaos struct {
	w   *world
	rng *rand.Rand
	// kinds are those of this seed, pace is the time between two.
	kinds []fault
	pace  span
	// order keeps faults apart that undo each other.
	order map[string]*sync.Mutex
}

func newChaos(w *world) *chaos {
	c := &chaos{w: w, rng: chanceOf(w.options.Seed, streamFaults), order: map[string]*sync.Mutex{}}
	for _, f := range faults {
		if c.order[f.name] = new(sync.Mutex); c.rng.IntN(2) == 0 {
			c.kinds = append(c.kinds, f)
		}
	}
	c.pace = span{0, time.Duration(1+c.rng.Int64N(20)) * 100 * time.Millisecond}
	return c
}

// run makes faults, several at a time, until their time is over.
func (c *chaos) run() {
	var running sync.WaitGroup
	for end := c.w.now() + c.w.options.Chaos; c.w.now() < end && len(c.kinds) > 0; {
		pause := c.pace.draw(c.rng)
		if c.rng.IntN(2) == 0 { // in the middle of it
			pause = c.w.untilBurst() + span{0, 20 * time.Millisecond}.draw(c.rng)
		}
		if !c.w.sleep(pause) {
			break
		}
		f := c.kinds[c.rng.IntN(len(c.kinds))]
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), 0))
		running.Go(func() {
			c.order[f.name].Lock()
			defer c.order[f.name].Unlock()
			if c.w.now() < end {
				c.w.count("faults: "+f.name, 1)
				f.do(c, rng)
			}
		})
	}
	running.Wait()
	c.w.log.Warn("CALM")
}

// victim is a host at random; workers more often than others.
func (c *chaos) victim(rng *rand.Rand) *host {
	all := append(c.w.hosts(), c.w.workers...)
	return all[rng.IntN(len(all))]
}

// crash kills a process; it is back before it is missed, or after.
func (c *chaos) crash(rng *rand.Rand) {
	h := c.victim(rng)
	h.hold(true)
	h.crash("chance")
	if rng.IntN(2) == 0 {
		c.w.sleep(while(rng))
	}
	h.hold(false)
}

// pause makes a process stand still, for shorter or longer than its membership
// lasts.
func (c *chaos) pause(rng *rand.Rand) {
	h := c.victim(rng)
	p, takes := h.process(), while(rng)
	if p == nil { // it has not started yet
		return
	}
	c.w.log.Warn("PAUSE", "host", h.name, "for", takes)
	p.pause(true)
	c.w.sleep(takes)
	p.pause(false)
	c.w.log.Warn("RESUME", "host", h.name)
}

// while is how long a fault lasts: shorter than a membership, or longer.
func while(rng *rand.Rand) time.Duration {
	if rng.IntN(2) == 0 {
		return span{5 * time.Millisecond, 500 * time.Millisecond}.draw(rng)
	}
	return span{2500 * time.Millisecond, 6 * time.Second}.draw(rng)
}

// cut cuts the wires between two hosts, one way or both: those of calls, those of
// verbs, or both.
func (c *chaos) cut(rng *rand.Rand) {
	all := c.w.hosts()
	a := rng.IntN(len(all))
	b := (a + 1 + rng.IntN(len(all)-1)) % len(all)
	c.sever(rng, []*host{all[a]}, []*host{all[b]})
}

// isolate cuts one host off from all others.
func (c *chaos) isolate(rng *rand.Rand) {
	v := c.victim(rng)
	var others []*host
	for _, h := range c.w.hosts() {
		if h != v {
			others = append(others, h)
		}
	}
	c.sever(rng, []*host{v}, others)
}

func (c *chaos) sever(rng *rand.Rand, some, others []*host) {
	there, back := true, true
	switch rng.IntN(3) {
	case 0:
		back = false
	case 1:
		there = false
	}
	calls, device := true, true
	switch rng.IntN(4) {
	case 0:
		calls = false
	case 1:
		device = false
	}
	takes := while(rng)
	for _, a := range some {
		for _, b := range others {
			c.w.log.Warn("CUT", "a", a.name, "b", b.name, "there", there, "back", back, "calls", calls, "verbs", device, "for", takes)
			c.set(wire{a.name, b.name}, there && calls, there && device)
			c.set(wire{b.name, a.name}, back && calls, back && device)
		}
	}
	c.w.sleep(takes)
	for _, a := range some {
		for _, b := range others {
			c.w.net.cut(wire{a.name, b.name}, false)
			c.w.net.cut(wire{b.name, a.name}, false)
			c.w.fabric.Heal(a.name, b.name)
			c.w.log.Warn("MENDED", "a", a.name, "b", b.name)
		}
	}
}

func (c *chaos) set(x wire, calls, device bool) {
	if calls {
		c.w.net.cut(x, true)
	}
	if device {
		c.w.fabric.PartitionOneWay(x.from, x.to)
	}
}

// verbs lets the fabric do what the contract allows, for a while.
func (c *chaos) verbs(rng *rand.Rand) {
	f := verbs.Swarm(rng.Uint64())
	f.Fatal /= 20 // it costs a process
	c.w.log.Warn("VERBS", "faults", f)
	c.w.fabric.SetFaults(f)
	c.w.sleep(while(rng))
	c.w.fabric.SetFaults(verbs.Faults{})
}

// disk makes the disk slow for a while, or lets its syncs or reads fail.
func (c *chaos) disk(rng *rand.Rand) {
	f := roughDisk
	switch rng.IntN(3) {
	case 0:
		f.FailSync = 0.02
	case 1:
		f.FailRead = 0.1
	}
	c.w.log.Warn("DISK", "faults", f)
	c.w.disk.SetFaults(f)
	c.w.sleep(while(rng))
	c.w.disk.SetFaults(calmDisk)
}

// drain has a worker leave in order, and join again.
func (c *chaos) drain(rng *rand.Rand) {
	g, victim := c.w.gateways[rng.IntN(gatewayCount)], c.w.workers[rng.IntN(workerCount)]
	c.w.log.Warn("DRAIN", "host", victim.name, "by", g.name)
	newLoad(c.w).send(g, request{method: http.MethodPost, path: "/v1/workers/" + victim.name + "/drain"}, 10*time.Second)
}
