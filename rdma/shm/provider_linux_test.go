package shm

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

func TestProviderClose(t *testing.T) {
	parent := directory(t)
	p, err := Open(Options{Directory: parent})
	must(t, err)
	r, err := p.Register(64)
	must(t, err)
	cq, err := p.NewCompletionQueue(rdma.CompletionQueueOptions{})
	must(t, err)
	qp, err := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq})
	must(t, err)
	for _, want := range []string{"1 queue pairs", "1 completion queues", "1 regions"} {
		if err := p.Close(); !errors.Is(err, rdma.ErrInUse) || !strings.Contains(err.Error(), want) {
			t.Errorf("Close ended with %v, want %v and %q", err, rdma.ErrInUse, want)
		}
		switch want {
		case "1 queue pairs":
			if err := cq.Close(); !errors.Is(err, rdma.ErrInUse) {
				t.Errorf("Close of a queue in use: %v", err)
			}
			must(t, qp.Close())
		case "1 completion queues":
			must(t, cq.Close())
			must(t, cq.Close())
		default:
			must(t, r.Close())
		}
	}
	must(t, p.Close())
	must(t, p.Close())
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("the provider left %v behind, %v", left, err)
	}
	_, err1 := p.Register(64)
	_, err2 := p.NewCompletionQueue(rdma.CompletionQueueOptions{})
	_, err3 := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq})
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, rdma.ErrClosed) {
			t.Errorf("a closed provider says %v", err)
		}
	}
}

// TestCloseDoesNotWaitForTheMute: a connection without a hello does not hold up
// Close.
func TestCloseDoesNotWaitForTheMute(t *testing.T) {
	p, err := Open(Options{Directory: directory(t)})
	must(t, err)
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: p.path, Net: "unixpacket"})
	must(t, err)
	defer conn.Close()
	waitUntil(t, "the connection is there", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.greeting) == 1
	})
	start := time.Now()
	must(t, p.Close())
	if took := time.Since(start); took >= p.options.HandshakeTimeout {
		t.Errorf("Close took %v", took)
	}
}

func TestOpenRefuses(t *testing.T) {
	parent := directory(t)
	long := filepath.Join(parent, strings.Repeat("d", 80))
	must(t, os.Mkdir(long, 0o700))
	for name, c := range map[string]struct {
		options Options
		want    error
	}{
		"no such directory":         {Options{Directory: parent + "/none"}, os.ErrNotExist},
		"too long a path":           {Options{Directory: long}, rdma.ErrInvalid},
		"negative HandshakeTimeout": {Options{HandshakeTimeout: -1}, rdma.ErrInvalid},
		"negative StopAfter":        {Options{StopAfter: -1}, rdma.ErrInvalid},
	} {
		if _, err := Open(c.options); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
	}
	if left, err := os.ReadDir(long); err != nil || len(left) > 0 {
		t.Errorf("Open left %v behind, %v", left, err)
	}
}

func TestRefusedOptions(t *testing.T) {
	n, other := newNode(t, 64, Options{}, rdma.QueuePairOptions{}), newNode(t, 64, Options{}, rdma.QueuePairOptions{})
	small, err := n.provider.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: 8})
	must(t, err)
	defer small.Close()
	for name, c := range map[string]struct {
		options rdma.QueuePairOptions
		want    error
	}{
		"no queue":                {rdma.QueuePairOptions{}, rdma.ErrInvalid},
		"queue of another":        {rdma.QueuePairOptions{SendCQ: other.cq}, rdma.ErrInvalid},
		"receive queue of others": {rdma.QueuePairOptions{SendCQ: n.cq, ReceiveCQ: other.cq}, rdma.ErrInvalid},
		"long name":               {rdma.QueuePairOptions{SendCQ: n.cq, Peer: strings.Repeat("x", 65)}, rdma.ErrInvalid},
		"send depth":              {rdma.QueuePairOptions{SendCQ: n.cq, SendDepth: maxDepth + 1}, rdma.ErrInvalid},
		"receive depth":           {rdma.QueuePairOptions{SendCQ: n.cq, ReceiveDepth: -1}, rdma.ErrInvalid},
		"timeout":                 {rdma.QueuePairOptions{SendCQ: n.cq, Timeout: -1}, rdma.ErrInvalid},
		"no room for sends":       {rdma.QueuePairOptions{SendCQ: small, SendDepth: 9, ReceiveDepth: 1}, rdma.ErrInUse},
		"no room for doorbells":   {rdma.QueuePairOptions{SendCQ: small, SendDepth: 4, ReceiveDepth: 5}, rdma.ErrInUse},
	} {
		if _, err := n.provider.NewQueuePair(c.options); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
	}
	qp, err := n.provider.NewQueuePair(rdma.QueuePairOptions{SendCQ: small, SendDepth: 4, ReceiveDepth: 4})
	must(t, err) // refused ones have reserved nothing
	must(t, qp.Close())
	for _, size := range []int{-1, 0, maxRegion + 1} {
		if _, err := n.provider.Register(size); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("a region of %d bytes: %v", size, err)
		}
	}
}
