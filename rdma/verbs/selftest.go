//go:build linux && cgo && rdma

package verbs

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

const (
	// selfTestLimit is how long the test may take, before the device counts as
	// broken.
	selfTestLimit = 10 * time.Second
	// A word whose bytes differ, so that their order shows, and what is added to
	// it and swapped for it.
	testWord uint64 = 0x0102030405060708
	testSwap uint64 = 0x1112131415161718
	testAdd  uint64 = 0x1000000000000001
)

// selfTest connects a queue pair to itself and checks that the verbs do what the
// contract says: a device whose CAS answers in another byte order, or does not
// work on the connection to itself, would lose updates silently.
func (p *Provider) selfTest() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), selfTestLimit)
	defer cancel()
	region, err := p.Register(64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, region.Close()) }()
	cq, err := p.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: 16})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cq.Close()) }()
	pair, err := p.NewQueuePair(rdma.QueuePairOptions{Peer: "self-test", SendCQ: cq, SendDepth: 8, ReceiveDepth: 8})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	if err := pair.Accept(pair.Address()); err != nil {
		return err
	}
	return (&selfTester{region, cq, pair}).run(ctx)
}

// selfTester has the words of its region: the target at 0, sources at 8, and
// results from 16 on.
type selfTester struct {
	region rdma.Region
	cq     rdma.CompletionQueue
	pair   rdma.QueuePair
}

func (t *selfTester) run(ctx context.Context) error {
	remote := t.region.Remote()
	word := func(offset int) rdma.Local { return t.region.Local(offset, 8) }
	t.region.Store(0, testWord)
	t.region.Store(8, testSwap+testAdd)
	steps := []struct {
		what    string
		request rdma.WorkRequest
		// found is what must be at 16 afterwards, target what must be at 0.
		found, target uint64
	}{
		{"CAS that fits", rdma.CAS(1, word(16), remote, 0, testWord, testSwap), testWord, testSwap},
		{"CAS that does not fit", rdma.CAS(2, word(16), remote, 0, testWord, 0), testSwap, testSwap},
		{"FAA", rdma.FAA(3, word(16), remote, 0, testAdd), testSwap, testSwap + testAdd},
	}
	for _, s := range steps {
		if err := t.do(ctx, s.request); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		if err := compare(s.what+" found", t.region.Load(16), s.found); err != nil {
			return err
		}
		if err := compare(s.what+" left", t.region.Load(0), s.target); err != nil {
			return err
		}
	}
	write := rdma.Write(4, word(8), remote, 0)
	write.Flags = 0
	t.region.Store(0, 0)
	if err := t.do(ctx, write, rdma.Read(5, word(24), remote, 0)); err != nil {
		return fmt.Errorf("READ after WRITE: %w", err)
	}
	return compare("READ after WRITE found", t.region.Load(24), testSwap+testAdd)
}

// do posts requests, of which the last is signaled, and waits for that one.
func (t *selfTester) do(ctx context.Context, requests ...rdma.WorkRequest) error {
	if _, err := t.pair.Post(requests); err != nil {
		return err
	}
	var c [1]rdma.Completion
	if _, err := t.cq.Wait(ctx, c[:]); err != nil {
		return fmt.Errorf("no completion of a request to itself: %w", err)
	}
	return c[0].Err()
}

func compare(what string, got, want uint64) error {
	switch got {
	case want:
		return nil
	case bits.ReverseBytes64(want):
		return fmt.Errorf("%w: %s %#x, which is %#x in the other byte order; this device cannot be used", rdma.ErrNotSupported, what, got, want)
	default:
		return fmt.Errorf("%s %#x, want %#x", what, got, want)
	}
}
