package shm

import (
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// collect is the goroutine collector: it moves the doorbells of the peer to the
// completion queue, sleeps in the poller when there are none, and ends with
// stopCollecting, after all that had been put by then, or when the peer writes
// nonsense.
func (q *queuePair) collect(l *link) {
	in := inbox{control: q.control, depth: uint64(q.options.ReceiveDepth)}
	closings := uint64(0) // that q.remotes knows of
	count := make([]byte, 8)
	for sleep := false; ; sleep = in.arm() {
		if sleep {
			if n := l.directory.Load(closingsAt); n != closings {
				closings = n
				q.dropClosed(l)
			}
			if _, err := q.bell.Read(count); err != nil {
				_ = q.takeDoorbells(&in) // the pair has broken already
				return
			}
		}
		if err := q.takeDoorbells(&in); err != nil {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.breakLocked(fmt.Errorf("shm queue pair %d to %q: %w", q.number, q.options.Peer, err), rdma.StatusFlushed)
			return
		}
	}
}

// takeDoorbells moves what is in the ring to the completion queue. The queue
// always has room: the inbox does not let the peer have more doorbells unpolled
// than were reserved.
func (q *queuePair) takeDoorbells(in *inbox) error {
	defer func() { in.release(uint64(q.polled.Load())) }()
	for {
		d, ok, err := in.take()
		if err != nil || !ok {
			return err
		}
		q.Posted(rdma.OpReceive, d.length)
		q.receivePlaces.Push(rdma.Completion{QP: q.number, Imm: d.imm, Length: d.length, Op: rdma.OpReceive}, &q.polled)
	}
}

// dropClosed unmaps regions that the peer has closed.
func (q *queuePair) dropClosed(l *link) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remotes.drop(func(r *remoteRegion) bool { return !r.open(l) })
}

// stopCollecting ends collect and waits for it.
func (q *queuePair) stopCollecting() {
	_ = q.bell.SetReadDeadline(time.Unix(1, 0)) // fails only if the bell is closed, and then collect has ended
	q.collector.Wait()
}
