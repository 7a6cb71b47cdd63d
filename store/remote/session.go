package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/store"
)

const appliedPrefix = "applied/"

// AppliedKey returns the key under which the store keeps the incarnation of a
// worker that has opened last, and the number of its last batch. It is written
// in the engine batch of that batch, so a crash cannot separate the two. There
// is one key for all incarnations of a worker: the record refuses the earlier
// ones, and nothing is left over to be cleaned up.
func AppliedKey(worker uint16) []byte {
	return store.MetaKey(appliedPrefix + strconv.Itoa(int(worker)))
}

const appliedBytes = 12

func appendApplied(dst []byte, incarnation uint32, n base.Number) []byte {
	dst = binary.BigEndian.AppendUint32(dst, incarnation)
	return binary.BigEndian.AppendUint64(dst, uint64(n))
}

// ReadApplied returns the incarnation of the worker that opened last and the
// number of its last batch in the log; zeros if it never opened.
func ReadApplied(r store.Reader, worker uint16) (incarnation uint32, n base.Number, err error) {
	raw, found, err := r.Get(nil, AppliedKey(worker))
	if err != nil || !found {
		return 0, 0, err
	}
	if len(raw) != appliedBytes {
		return 0, 0, fmt.Errorf("the record of worker %d's last batch has %d bytes, %d expected: the store is corrupt", worker, len(raw), appliedBytes)
	}
	return binary.BigEndian.Uint32(raw), base.Number(binary.BigEndian.Uint64(raw[4:])), nil
}

// session is what the server knows of one worker. Lock order: order, mu.
type session struct {
	worker uint16
	key    []byte

	// order is held from the check of a batch's number to its place in the
	// engine's log, and while a stream opens. Engine calls under it are its
	// purpose: the log order of a worker is decided here.
	order sync.Mutex
	// record is the scratch space of the applied record, guarded by order.
	record []byte

	mu sync.Mutex
	// What follows is guarded by mu and changed only with order held, too, so
	// that the holder of order may read it without mu.

	// incarnation is the one that opened last; 0 until a stream has opened in
	// this life of the server.
	incarnation uint32
	// applied is the last number of that incarnation in the log, logged the
	// engine's number for it (0: durable since before the stream opened).
	applied, logged base.Number
	// current is the stream that may commit.
	current *commits
	// changed is closed when one of them changes; nil if nobody waits.
	changed chan struct{}
}

// change runs f, which changes fields, and wakes who waits. The caller holds
// order.
func (ses *session) change(f func()) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	f()
	if ses.changed != nil {
		close(ses.changed)
		ses.changed = nil
	}
}

// errReplaced marks what ends a stream, or a call, of a member for good.
var errReplaced = errors.New("the member was replaced")

func superseded(m Member, newest uint32) error {
	return &base.Error{Kind: base.Unavailable, Err: errReplaced,
		Detail: fmt.Sprintf("worker %d is in incarnation %d by now and refuses incarnation %d, which must stop", m.Worker, newest, m.Incarnation)}
}

// open makes c the stream of its member. When it returns, the incarnation and
// whatever was in the log of it before this life of the server are durable.
// errReplaced means that a newer incarnation has opened.
func (ses *session) open(engine store.Engine, c *commits) (base.Number, error) {
	ses.order.Lock()
	defer ses.order.Unlock()
	m := c.member
	if ses.incarnation == 0 || m.Incarnation > ses.incarnation {
		newest, applied, err := ReadApplied(engine, m.Worker)
		if err != nil {
			return 0, err
		}
		if m.Incarnation < newest {
			return 0, superseded(m, newest)
		}
		if m.Incarnation > newest {
			applied = 0
		}
		// Also an unchanged record is written: what an engine recovered after
		// a crash of its process is durable for sure once something behind it is.
		b := engine.NewBatch()
		defer b.Release()
		b.Set(ses.key, appendApplied(nil, m.Incarnation, applied))
		if err := engine.Apply(b); err != nil {
			return 0, err
		}
		ses.take(c, func() { ses.incarnation, ses.applied, ses.logged = m.Incarnation, applied, 0 })
		return applied, nil
	}
	if m.Incarnation < ses.incarnation {
		return 0, superseded(m, ses.incarnation)
	}
	ses.take(c, func() {})
	return ses.applied, nil
}

// take replaces the current stream. The caller holds order.
func (ses *session) take(c *commits, f func()) {
	old := ses.current
	ses.change(func() { f(); ses.current = c })
	if old == nil {
		return
	}
	if old.member == c.member {
		old.fail(base.Errorf(base.Unavailable, "another connection commits as member %s: every start of a worker needs an incarnation of its own", c.member))
	} else {
		old.fail(superseded(old.member, c.member.Incarnation))
	}
}

// leave forgets c if it is the current stream.
func (ses *session) leave(c *commits) {
	ses.order.Lock()
	defer ses.order.Unlock()
	if ses.current == c {
		ses.change(func() { ses.current = nil })
	}
}

// append applies batch n of c's member, drops a repeat, or refuses. An error
// ends the stream: of kind Invalid if the sender broke the protocol,
// errReplaced if another stream has taken over.
func (ses *session) append(engine store.Engine, c *commits, n base.Number, view base.View, operations []byte) error {
	ses.order.Lock()
	defer ses.order.Unlock()
	switch {
	case ses.current != c:
		return errReplaced
	case n <= ses.applied:
		c.repeated()
		return nil
	case n > ses.applied+1 && plant.Is(plant.PipelineAnyOrder):
	case n > ses.applied+1 && c.refusing:
		return nil // behind a refused batch, which comes again first
	case n > ses.applied+1:
		return base.Invalidf("batch", "batch %d of member %s came after batch %d: there is a gap", n, c.member, ses.applied)
	}
	b := engine.NewBatch()
	defer b.Release()
	if err := decode(operations, b, c.closed); err != nil {
		return err
	}
	ses.record = appendApplied(ses.record[:0], c.member.Incarnation, n)
	b.Set(ses.key, ses.record)
	logged, err := engine.Append(view, b)
	if err != nil {
		// Engines do not say why they refuse; a seal only grows, so this tells.
		if seal := engine.Sealed(); view < seal {
			c.refusing = true
			c.refuse(n, seal)
			return nil
		}
		return err
	}
	c.refusing = false
	ses.change(func() { ses.applied, ses.logged = n, logged })
	return nil
}

// last returns the number of the last applied batch of c's member and the
// engine's for it; false if c is not the current stream, so that a stream that
// was replaced never acknowledges its successor's batches.
func (ses *session) last(c *commits) (applied, logged base.Number, current bool) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return ses.applied, ses.logged, ses.current == c
}

// wait returns when batch n of the member is in the log, or with an error when
// the member was replaced or ctx ends.
func (ses *session) wait(ctx context.Context, m Member, n base.Number) error {
	for {
		ses.mu.Lock()
		incarnation, applied := ses.incarnation, ses.applied
		if m.Incarnation < incarnation {
			ses.mu.Unlock()
			return superseded(m, incarnation)
		}
		if n == 0 || m.Incarnation == incarnation && applied >= n {
			ses.mu.Unlock()
			return nil
		}
		if ses.changed == nil {
			ses.changed = make(chan struct{})
		}
		changed := ses.changed
		ses.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return base.Errorf(base.Unavailable, "batch %d of member %s, which the call depends on, has not arrived: the last one is %d of incarnation %d", n, m, applied, incarnation)
		}
	}
}
