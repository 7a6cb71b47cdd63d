package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/ring"
)

// peer is a member, which may be this worker itself: its two ends and its memory.
type peer struct {
	mesh   *Mesh
	member lease.Member
	tally  *tally
	// region has the ring for messages of the peer, the staging for those to it,
	// then a word for each signaled request. For this worker: only the words.
	region  rdma.Region
	results int // offset of the words
	units   int // of a ring
	out     link
	in      inbox
	// stream names the history of messages to the peer.
	stream uint64

	cancel context.CancelFunc
	// nudge has a token when the keeper should look again.
	nudge chan struct{}
	// heard has a token when the peer has made an offer: it lives, and knows us.
	heard chan struct{}
	// stopped is closed when the keeper has ended.
	stopped chan struct{}
	// generation of the last offer; the keeper's.
	generation uint64
}

// tally counts for one worker, whatever its incarnation.
type tally struct {
	verbs                      rdma.Tally
	sent, received, reconnects atomic.Uint64
}

func (m *Mesh) newPeer(member lease.Member) (*peer, error) {
	p := &peer{mesh: m, member: member, tally: m.tallyOf(member.Worker), units: ring.Units(m.options.RingBytes),
		nudge: make(chan struct{}, 1), heard: make(chan struct{}, 1), stopped: make(chan struct{}), stream: rand.Uint64()}
	depth := m.options.sendDepth()
	if !p.self() {
		p.results = 2 * m.options.RingBytes
	}
	var err error
	if p.region, err = m.options.Provider.Register(p.results + 8*depth); err != nil {
		return nil, fmt.Errorf("mesh: memory for the link to worker %d: %w", member.Worker, err)
	}
	p.out.init(p, depth)
	p.in.init(p)
	if !p.self() {
		if p.out.sender, err = ring.NewSender(p.region, m.options.RingBytes, m.options.RingBytes); err != nil {
			return nil, errors.Join(err, p.region.Close())
		}
	}
	return p, nil
}

func (p *peer) self() bool { return p.member == p.mesh.options.Me }

// resultAt is where CAS and proofs put what they found.
func (p *peer) resultAt(i uint32) int { return p.results + 8*int(i) }

func (p *peer) log() *slog.Logger {
	return p.mesh.options.Logger.With("worker", p.member.Worker, "incarnation", p.member.Incarnation)
}

// wakeKeeper makes the keeper look again.
func (p *peer) wakeKeeper() { wake(p.nudge) }

// wake puts a token into a channel of capacity one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it will look in any case
	}
}

// keep connects the link and tends it, again and again, until ctx ends. It leaves
// what is open then to takeDown.
func (p *peer) keep(ctx context.Context) {
	defer close(p.stopped)
	backoff, started := minBackoff, time.Now()
	for quiet := false; ctx.Err() == nil; {
		p.in.sweep(ctx)
		began := time.Now()
		err := p.connect(ctx)
		if err == nil {
			quiet = false
			err = p.tend(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		// A link that lived for long enough is made anew at once.
		if time.Since(began) > 10*backoff && !quiet {
			backoff = minBackoff
		} else {
			backoff = min(2*backoff, maxBackoff)
		}
		if !quiet { // one line for each time that the link breaks
			level := slog.LevelWarn
			switch {
			case p.out.resumes():
			case time.Since(started) < p.mesh.options.Timeout: // one has installed the view before the other
				level = slog.LevelDebug
			default:
				level = slog.LevelInfo
			}
			p.log().Log(ctx, level, "mesh: the link to a member is down", "error", err)
			quiet = level != slog.LevelDebug
		}
		for p.dismantle(ctx) != nil && ctx.Err() == nil {
			p.pause(ctx, maxBackoff)
		}
		p.pause(ctx, backoff)
	}
}

// pause waits between half of d and d, until ctx ends, or for an eighth of d if an
// offer of the peer shows that it can be reached: both may be able to make offers
// and no links.
func (p *peer) pause(ctx context.Context, d time.Duration) {
	least := time.NewTimer(d / 8)
	defer least.Stop()
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	var heard <-chan struct{}
	for {
		select {
		case <-least.C:
			heard = p.heard
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-heard:
			return
		case <-p.nudge:
			p.in.sweep(ctx)
		}
	}
}

// connect makes a queue pair and the peer its end; then the link is up.
func (p *peer) connect(ctx context.Context) error {
	m := p.mesh
	ctx, cancel := context.WithTimeout(ctx, patience*m.options.Timeout)
	defer cancel()
	receives := creditDepth
	if p.self() {
		receives = 1
	}
	e, err := m.newEnd(p, false, m.options.sendDepth(), receives)
	if err != nil {
		return err
	}
	p.out.mu.Lock()
	p.out.end = e
	p.out.mu.Unlock()
	if p.self() {
		if err := e.qp.Accept(e.qp.Address()); err != nil {
			return fmt.Errorf("mesh: accept this worker: %w", err)
		}
		if err := e.qp.Connect(ctx, e.qp.Address()); err != nil {
			return fmt.Errorf("mesh: connect to this worker: %w", err)
		}
		return p.rise(e, nil)
	}
	p.generation++
	o := &m.options
	offer := Offer{
		From: o.Me, To: p.member, Provider: o.Provider.Name(), Slots: uint64(o.Slots), RingBytes: uint64(o.RingBytes),
		QueuePair: e.qp.Address(), Stream: p.stream, Generation: p.generation, Resumes: p.out.resumes(),
	}
	answer, err := o.Exchanger.Exchange(ctx, p.member, offer)
	if err != nil {
		return fmt.Errorf("mesh: offer to worker %d: %w", p.member.Worker, err)
	}
	if err := answer.checkAnswer(&offer, o); err != nil {
		return err
	}
	if err := e.qp.Connect(ctx, answer.QueuePair); err != nil {
		return fmt.Errorf("mesh: connect to worker %d: %w", p.member.Worker, err)
	}
	if err := p.out.probe(ctx, e, answer.Words); err != nil {
		return err
	}
	return p.rise(e, &answer)
}

// rise declares the link up. There is no answer for that of this worker itself.
func (p *peer) rise(e *end, answer *Offer) error {
	m := p.mesh
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := p.out.rise(e, answer); err != nil {
		return err
	}
	m.options.Handler.LinkUp(p.member.Worker)
	return nil
}

// tend watches over a link that is up until it breaks, and says why it did.
func (p *peer) tend(ctx context.Context) error {
	p.out.flush() // what rise has queued
	tick := time.NewTicker(p.mesh.options.Timeout)
	defer tick.Stop()
	for {
		p.in.sweep(ctx)
		p.out.mu.Lock()
		state, cause := p.out.state, p.out.cause
		p.out.mu.Unlock()
		if state != stateUp {
			return cause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.nudge:
		case <-tick.C:
			p.out.prove()
		}
	}
}

// dismantle takes down the link: LinkDown, revoke, the outcomes of what was
// outstanding. It returns nil when all of them were reported.
func (p *peer) dismantle(ctx context.Context) error {
	m := p.mesh
	p.out.mu.Lock()
	if p.out.state == stateUp {
		p.out.failLocked(p.out.end, ctx.Err())
	}
	p.out.mu.Unlock()
	m.calls.Lock()
	m.reportDown(&p.out)
	m.calls.Unlock()
	return p.out.takeDown(ctx)
}

// hurry ends the pause before the next offer, because the peer was heard of.
func (p *peer) hurry() { wake(p.heard) }
