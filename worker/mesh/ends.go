package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tenure-faas/tenure/rdma"
)

// end is a queue pair of this mesh.
type end struct {
	peer   *peer
	qp     rdma.QueuePair
	number uint32
	// passive says that it belongs to the peer's inbox.
	passive bool

	mu     sync.Mutex // serialises close; not a leaf, closing waits
	closed bool
}

// ends are the queue pairs by number: those that are open, and those that are
// closed but whose last completions the poller may not have seen. A device may
// give the number of a closed queue pair to a new one, whose doorbells must not be
// mistaken.
type ends struct {
	mu     sync.RWMutex // a leaf
	open   map[uint32]*end
	closed []*end
}

// tries is how many numbers in a row may be those of closed ends.
const tries = 8

// newEnd makes a queue pair to a peer.
func (m *Mesh) newEnd(p *peer, passive bool, sends, receives int) (*end, error) {
	o := rdma.QueuePairOptions{Peer: fmt.Sprintf("worker %d", p.member.Worker), SendCQ: m.queue,
		SendDepth: sends, ReceiveDepth: receives, Timeout: m.options.Timeout}
	var skipped []*end
	defer func() {
		for _, e := range skipped {
			_ = e.qp.Close() // it was never connected
		}
	}()
	for range tries {
		qp, err := m.options.Provider.NewQueuePair(o)
		if err != nil {
			return nil, fmt.Errorf("mesh: queue pair to worker %d: %w", p.member.Worker, err)
		}
		e := &end{peer: p, qp: qp, number: qp.Number(), passive: passive}
		if m.ends.add(e) {
			return e, nil
		}
		skipped = append(skipped, e)
	}
	return nil, fmt.Errorf("mesh: queue pair to worker %d: the last %d numbers were those of others that closed just now", p.member.Worker, tries)
}

func (s *ends) add(e *end) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[e.number] != nil {
		return false
	}
	s.open[e.number] = e
	return true
}

func (s *ends) find(number uint32) *end {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.open[number]
}

func (s *ends) list() (all []*end) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, e := range s.open {
		all = append(all, e)
	}
	return all
}

// takeClosed appends the ends that were closed since the last call to dst.
func (s *ends) takeClosed(dst []*end) []*end {
	s.mu.Lock()
	defer s.mu.Unlock()
	dst = append(dst, s.closed...)
	s.closed = s.closed[:0]
	return dst
}

func (s *ends) forget(closed []*end) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range closed {
		delete(s.open, e.number)
	}
}

// revokeEnd revokes and closes a queue pair. After an error nothing is certain,
// and it can be called again.
func (m *Mesh) revokeEnd(ctx context.Context, e *end) error {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return nil
	}
	if err := e.qp.Revoke(ctx); err != nil && !errors.Is(err, rdma.ErrClosed) {
		return fmt.Errorf("mesh: revoke the queue pair of worker %d: %w", e.peer.member.Worker, err)
	}
	return m.closeEnd(e)
}

// closeEnd closes a queue pair, once.
func (m *Mesh) closeEnd(e *end) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	err := e.qp.Close()
	m.ends.mu.Lock()
	m.ends.closed = append(m.ends.closed, e)
	m.ends.mu.Unlock()
	if err != nil {
		return fmt.Errorf("mesh: close the queue pair of worker %d: %w", e.peer.member.Worker, err)
	}
	return nil
}
