package txn

import (
	"strings"

	"github.com/tenure-faas/tenure/internal/plant"
)

// Gate keeps scans and writes of one table apart where they would see
// phantoms. It is not safe for concurrent use: the caller holds its latch.
type Gate struct {
	scanners, writers passList
	queue             []*Pass
}

// Pass is one transaction's way through the gate of one table: the prefixes
// it scans there and the keys it writes there. The transaction owns the memory
// and may reuse it after Leave or Cancel.
type Pass struct {
	// Table names the gate.
	Table string
	// Scans are the prefixes that are scanned, Writes the keys that are written.
	Scans, Writes []string
	// Wake belongs to the requester: how to find the waiter.
	Wake chan struct{}

	inside          bool
	scanner, writer bool // which lists the pass is in
	sPrev, sNext    *Pass
	wPrev, wNext    *Pass
}

// Inside reports whether the pass has been let in. Call it under the latch.
func (p *Pass) Inside() bool { return p.inside }

// passList is a doubly linked list of passes, threaded through one of the two
// pairs of links.
type passList struct {
	first *Pass
	n     int
}

func (p *Pass) conflicts(q *Pass) bool {
	return scansMeet(p.Scans, q.Writes) || scansMeet(q.Scans, p.Writes)
}

func scansMeet(scans, writes []string) bool {
	if plant.Is(plant.NoGate) {
		return false
	}
	for _, prefix := range scans {
		for _, key := range writes {
			if strings.HasPrefix(key, prefix) {
				return true
			}
		}
	}
	return false
}

// blocked reports whether p conflicts with a pass inside the gate, itself
// excepted.
func (g *Gate) blocked(p *Pass) bool {
	if len(p.Writes) > 0 {
		for q := g.scanners.first; q != nil; q = q.sNext {
			if q != p && scansMeet(q.Scans, p.Writes) {
				return true
			}
		}
	}
	if len(p.Scans) > 0 {
		for q := g.writers.first; q != nil; q = q.wNext {
			if q != p && scansMeet(p.Scans, q.Writes) {
				return true
			}
		}
	}
	return false
}

// Enter asks to pass with p.Scans and p.Writes. With wait it returns Granted
// or Queued, without it Granted or Refused.
func (g *Gate) Enter(p *Pass, wait bool) Status {
	p.inside = false
	if !g.behind(p, len(g.queue)) && !g.blocked(p) {
		g.admit(p)
		return Granted
	}
	if !wait {
		return Refused
	}
	g.queue = append(g.queue, p)
	return Queued
}

// behind reports whether p conflicts with one of the first n queued passes: it
// must not overtake them.
func (g *Gate) behind(p *Pass, n int) bool {
	for _, q := range g.queue[:n] {
		if p.conflicts(q) {
			return true
		}
	}
	return false
}

// Extend adds a write or a scan to a pass that is inside, without waiting.
// Refused leaves the pass as it was. What the pass has already need not, and
// should not, be asked for again: it would be refused if somebody queues for it.
func (g *Gate) Extend(p *Pass, scans, writes []string) Status {
	q := Pass{Scans: scans, Writes: writes}
	for r := g.scanners.first; r != nil; r = r.sNext {
		if r != p && q.conflicts(r) {
			return Refused
		}
	}
	for r := g.writers.first; r != nil; r = r.wNext {
		if r != p && q.conflicts(r) {
			return Refused
		}
	}
	if g.behind(&q, len(g.queue)) {
		return Refused
	}
	p.Scans = append(p.Scans, scans...)
	p.Writes = append(p.Writes, writes...)
	g.link(p)
	return Granted
}

func (g *Gate) admit(p *Pass) {
	p.inside = true
	g.link(p)
}

// link enters p in the lists of what it does and is not yet in.
func (g *Gate) link(p *Pass) {
	if len(p.Scans) > 0 && !p.scanner {
		p.scanner = true
		p.sPrev, p.sNext = nil, g.scanners.first
		if p.sNext != nil {
			p.sNext.sPrev = p
		}
		g.scanners.first = p
		g.scanners.n++
	}
	if len(p.Writes) > 0 && !p.writer {
		p.writer = true
		p.wPrev, p.wNext = nil, g.writers.first
		if p.wNext != nil {
			p.wNext.wPrev = p
		}
		g.writers.first = p
		g.writers.n++
	}
}

// Leave gives a pass back and appends to woken the passes let in by that.
func (g *Gate) Leave(p *Pass, woken []*Pass) []*Pass {
	if p.scanner {
		if p.sPrev == nil {
			g.scanners.first = p.sNext
		} else {
			p.sPrev.sNext = p.sNext
		}
		if p.sNext != nil {
			p.sNext.sPrev = p.sPrev
		}
		g.scanners.n--
	}
	if p.writer {
		if p.wPrev == nil {
			g.writers.first = p.wNext
		} else {
			p.wPrev.wNext = p.wNext
		}
		if p.wNext != nil {
			p.wNext.wPrev = p.wPrev
		}
		g.writers.n--
	}
	p.sPrev, p.sNext, p.wPrev, p.wNext = nil, nil, nil, nil
	p.inside, p.scanner, p.writer = false, false, false
	return g.settle(woken)
}

// Cancel takes back a queued pass. It returns false if the pass has been let
// in meanwhile: then the caller is inside.
func (g *Gate) Cancel(p *Pass, woken []*Pass) ([]*Pass, bool) {
	if p.inside {
		return woken, false
	}
	for i, q := range g.queue {
		if q == p {
			g.queue = append(g.queue[:i], g.queue[i+1:]...)
			break
		}
	}
	return g.settle(woken), true
}

// settle lets in every queued pass that conflicts neither with those inside
// nor with one queued before it.
func (g *Gate) settle(woken []*Pass) []*Pass {
	for i := 0; i < len(g.queue); {
		p := g.queue[i]
		if g.behind(p, i) || g.blocked(p) {
			i++
			continue
		}
		g.queue = append(g.queue[:i], g.queue[i+1:]...)
		g.admit(p)
		woken = append(woken, p)
	}
	return woken
}

// Idle reports whether nobody is inside or waits.
func (g *Gate) Idle() bool { return g.scanners.n == 0 && g.writers.n == 0 && len(g.queue) == 0 }
