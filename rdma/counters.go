package rdma

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// OpCounters count one opcode.
type OpCounters struct {
	// Posted requests, or doorbells received for OpReceive.
	Posted uint64
	// Failed is how many of them completed with an error.
	Failed uint64
	// Bytes of payload that were posted.
	Bytes uint64
}

// Counters are indexed by Opcode; index 0 is not used.
type Counters [OpReceive + 1]OpCounters

// Add adds other to c.
func (c *Counters) Add(other *Counters) {
	for op := range c {
		c[op].Posted += other[op].Posted
		c[op].Failed += other[op].Failed
		c[op].Bytes += other[op].Bytes
	}
}

// PeerCounters are the counters of all queue pairs, open or closed, to one peer.
type PeerCounters struct {
	// Peer is the name given in QueuePairOptions.
	Peer string
	// Counters by opcode.
	Counters Counters
}

// Tally counts for a queue pair; a provider embeds one in each. The zero value
// is ready. All methods are safe for concurrent use and allocate nothing.
type Tally struct {
	ops [OpReceive + 1]struct{ posted, failed, bytes atomic.Uint64 }
}

// Posted counts a request or a doorbell of n bytes.
func (t *Tally) Posted(op Opcode, n uint32) {
	t.ops[op].posted.Add(1)
	t.ops[op].bytes.Add(uint64(n))
}

// Failed counts a completion with an error.
func (t *Tally) Failed(op Opcode) { t.ops[op].failed.Add(1) }

// Counters returns the counts so far.
func (t *Tally) Counters() (c Counters) {
	for op := range c {
		c[op] = OpCounters{Posted: t.ops[op].posted.Load(), Failed: t.ops[op].failed.Load(), Bytes: t.ops[op].bytes.Load()}
	}
	return c
}

// Ledger keeps the tallies of a provider by peer. The zero value is ready.
type Ledger struct {
	mu     sync.Mutex
	closed map[string]Counters
	open   map[*Tally]string
}

// Open enters the tally of a new queue pair to peer.
func (l *Ledger) Open(t *Tally, peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*Tally]string{}
	}
	l.open[t] = peer
}

// Close adds the final counts of a queue pair to its peer's.
func (l *Ledger) Close(t *Tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	peer, ok := l.open[t]
	if !ok {
		return
	}
	delete(l.open, t)
	if l.closed == nil {
		l.closed = map[string]Counters{}
	}
	sum, last := l.closed[peer], t.Counters()
	sum.Add(&last)
	l.closed[peer] = sum
}

// Counters returns the sums by peer, sorted by its name.
func (l *Ledger) Counters() []PeerCounters {
	l.mu.Lock()
	defer l.mu.Unlock()
	sums := map[string]Counters{}
	for peer, c := range l.closed {
		sums[peer] = c
	}
	for t, peer := range l.open {
		sum, now := sums[peer], t.Counters()
		sum.Add(&now)
		sums[peer] = sum
	}
	all := make([]PeerCounters, 0, len(sums))
	for peer, c := range sums {
		all = append(all, PeerCounters{peer, c})
	}
	slices.SortFunc(all, func(a, b PeerCounters) int { return strings.Compare(a.Peer, b.Peer) })
	return all
}
