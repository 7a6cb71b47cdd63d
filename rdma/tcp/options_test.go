package tcp

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

func TestOptionsValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string // "" for valid
	}{
		{"defaults", func(*Options) {}, ""},
		{"a name to advertise", func(o *Options) { o.Listen, o.Advertise = ":7000", "worker-3.example.org:7000" }, ""},
		{"no port", func(o *Options) { o.Listen = "127.0.0.1" }, "Listen"},
		{"advertise without host", func(o *Options) { o.Advertise = ":7000" }, "Advertise"},
		{"advertise a wildcard", func(o *Options) { o.Advertise = "[::]:7000" }, "Advertise"},
		{"advertise port 0", func(o *Options) { o.Advertise = "10.0.0.1:0" }, "Advertise"},
		{"advertise a novel", func(o *Options) { o.Advertise = strings.Repeat("a", rdma.MaxAddress) + ":1" }, "bytes"},
		{"negative timeout", func(o *Options) { o.HandshakeTimeout = -1 }, "HandshakeTimeout"},
		{"negative handshakes", func(o *Options) { o.Handshakes = -1 }, "Handshakes"},
		{"negative patience", func(o *Options) { o.DoorbellPatience = -time.Second }, "DoorbellPatience"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o Options
			c.change(&o)
			o.EnsureDefaults()
			err := o.Validate()
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, rdma.ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestOptionsValidateNamesAllFaults(t *testing.T) {
	o := Options{Listen: "x", Advertise: "y", HandshakeTimeout: -1, Handshakes: -1, DoorbellPatience: -1}
	err := o.Validate()
	for _, field := range []string{"Listen", "Advertise", "HandshakeTimeout", "Handshakes", "DoorbellPatience"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestOpenFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]struct {
		options Options
		want    error
	}{
		"port in use":                {Options{Listen: l.Addr().String()}, nil},
		"wildcard without advertise": {Options{Listen: "0.0.0.0:0"}, rdma.ErrInvalid},
		"malformed":                  {Options{Listen: "nowhere"}, rdma.ErrInvalid},
	} {
		if p, err := Open(c.options); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

// TestAdvertise: addresses carry what peers dial, which need not be what the
// listener listens on.
func TestAdvertise(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // to find a free port
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	n := newNode(t, Options{Listen: "0.0.0.0:" + port, Advertise: "localhost:" + port}, 64)
	q := n.pair(t, rdma.QueuePairOptions{})
	a, err := parseAddress(q.Address())
	if err != nil || a.host != "localhost:"+port {
		t.Fatalf("the address is %+v, %v", a, err)
	}
	connect(t, newNode(t, Options{}, 64).pair(t, rdma.QueuePairOptions{}), q)
}

func TestNewQueuePairFails(t *testing.T) {
	n, other := newNode(t, Options{}, 64), newNode(t, Options{}, 64)
	small, err := n.p.NewCompletionQueue(rdma.CompletionQueueOptions{Depth: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	for name, c := range map[string]struct {
		options rdma.QueuePairOptions
		want    error
	}{
		"no queue":                  {rdma.QueuePairOptions{}, rdma.ErrInvalid},
		"queue of another provider": {rdma.QueuePairOptions{SendCQ: other.cq}, rdma.ErrInvalid},
		"receive queue of another":  {rdma.QueuePairOptions{SendCQ: n.cq, ReceiveCQ: other.cq}, rdma.ErrInvalid},
		"too deep":                  {rdma.QueuePairOptions{SendCQ: n.cq, SendDepth: maxDepth + 1}, rdma.ErrInvalid},
		"negative depth":            {rdma.QueuePairOptions{SendCQ: n.cq, ReceiveDepth: -1}, rdma.ErrInvalid},
		"negative timeout":          {rdma.QueuePairOptions{SendCQ: n.cq, Timeout: -1}, rdma.ErrInvalid},
		"long name":                 {rdma.QueuePairOptions{SendCQ: n.cq, Peer: strings.Repeat("a", maxName+1)}, rdma.ErrInvalid},
		"queue too small":           {rdma.QueuePairOptions{SendCQ: small, SendDepth: 6, ReceiveDepth: 5}, rdma.ErrInUse},
		"receive queue too small":   {rdma.QueuePairOptions{SendCQ: n.cq, ReceiveCQ: small, ReceiveDepth: 11}, rdma.ErrInUse},
	} {
		if _, err := n.p.NewQueuePair(c.options); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// What failed has reserved nothing.
	q, err := n.p.NewQueuePair(rdma.QueuePairOptions{SendCQ: small, SendDepth: 5, ReceiveDepth: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

func TestRegisterFails(t *testing.T) {
	n := newNode(t, Options{}, 64)
	for _, size := range []int{0, -1, n.p.Limits().MaxRegion + 1} {
		if _, err := n.p.Register(size); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("region of %d bytes: %v, want ErrInvalid", size, err)
		}
	}
}

// TestCloseOrder closes in the wrong order first.
func TestCloseOrder(t *testing.T) {
	p, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	cq, err := p.NewCompletionQueue(rdma.CompletionQueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Register(8)
	if err != nil {
		t.Fatal(err)
	}
	q, err := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq, Peer: "worker-7"})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error, words ...string) {
		t.Helper()
		for _, w := range words {
			if !errors.Is(err, rdma.ErrInUse) || !strings.Contains(err.Error(), w) {
				t.Errorf("close %s: %v, want ErrInUse and %q", what, err, w)
			}
		}
	}
	good := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("close %s: %v", what, err)
		}
	}
	refused("provider", p.Close(), "queue pair 1 to worker-7", "1 completion queues", "1 regions")
	refused("completion queue", cq.Close(), "256 places")
	good("queue pair", q.Close())
	good("queue pair again", q.Close())
	refused("provider", p.Close(), "1 completion queues", "1 regions")
	good("completion queue", cq.Close())
	good("completion queue again", cq.Close())
	refused("provider", p.Close(), "1 regions")
	good("region", r.Close())
	good("provider", p.Close())
	good("provider again", p.Close())
	if _, err := p.Register(8); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("Register: %v, want ErrClosed", err)
	}
	if _, err := p.NewCompletionQueue(rdma.CompletionQueueOptions{}); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("NewCompletionQueue: %v, want ErrClosed", err)
	}
	if _, err := p.NewQueuePair(rdma.QueuePairOptions{SendCQ: cq}); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("NewQueuePair: %v, want ErrClosed", err)
	}
}
