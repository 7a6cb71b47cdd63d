package sim

import (
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// span is a range of virtual time; a value is drawn evenly from it.
type span struct{ least, most time.Duration }

func (s span) draw(rng *rand.Rand) time.Duration {
	if s.most <= s.least {
		return s.least
	}
	return s.least + time.Duration(rng.Int64N(int64(s.most-s.least)+1))
}

// wire is one direction between two hosts.
type wire struct{ from, to string }

// network carries calls between processes: each message takes its time, waits
// while its wire is cut or one of its processes stands still, and is lost, with the
// call or the stream that it belongs to, when that takes longer than the
// connection's patience.
type network struct {
	// delay is how long a message takes, patience how long a cut or a silence lasts
	// until the connection is given up.
	delay, patience span

	mu sync.Mutex // guards what follows
	// rng draws delays and patience.
	rng *rand.Rand
	// hosts has the newest process of each host.
	hosts map[string]*process
	cuts  map[wire]bool
	// changed is closed, and replaced, when a wire is mended, a process goes on,
	// starts to serve or dies.
	changed chan struct{}
}

func newNetwork(rng *rand.Rand) *network {
	return &network{
		delay: span{20 * time.Microsecond, 400 * time.Microsecond}, patience: span{300 * time.Millisecond, 8 * time.Second},
		rng: rng, hosts: map[string]*process{}, cuts: map[wire]bool{}, changed: make(chan struct{}),
	}
}

// process is one start of a host. Its goroutines cannot be ended from outside; a
// process that was killed is cut off from everything instead: whatever it does
// afterwards reaches nobody.
type process struct {
	net  *network
	host string
	// dead is closed by kill.
	dead    chan struct{}
	killing sync.Once
	server  *server
	stopped bool // guarded by net.mu: it stands still
}

// boot makes a new process of a host, which serves nothing yet.
func (n *network) boot(host string) *process {
	p := &process{net: n, host: host, dead: make(chan struct{})}
	p.server = newServer(p)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[host] = p
	return p
}

// tell wakes those who wait for the network to change. The caller holds mu.
func (n *network) tell() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// kill ends the process at once.
func (p *process) kill() {
	p.killing.Do(func() { close(p.dead) })
	p.server.halt()
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.net.tell()
}

// alive says that nobody has killed it.
func (p *process) alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return true
	}
}

// pause makes a process stand still, or go on.
func (p *process) pause(still bool) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.stopped = still
	p.net.tell()
}

// gate returns when the process does not stand still. What a process does to the
// world outside goes through it, so that from there it looks like one whose
// processor has stopped.
func (p *process) gate() {
	for {
		p.net.mu.Lock()
		still, changed := p.stopped, p.net.changed
		p.net.mu.Unlock()
		if !still || !p.alive() {
			return
		}
		<-changed
	}
}

// cut cuts a wire, or mends it.
func (n *network) cut(w wire, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[w] = cut
	n.tell()
}

// at is the process that serves a host now; nil if nobody does. The second result
// is closed when that may have changed.
func (n *network) at(host string) (*process, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.hosts[host]
	if p != nil && (!p.alive() || !p.server.serving()) {
		p = nil
	}
	return p, n.changed
}

// errBroken is what is left of a connection that was given up.
func errBroken(from, to string) error {
	return status.Errorf(codes.Unavailable, "the connection from %s to %s broke", from, to)
}

// carry brings a message from one process to another. It fails when the receiver is
// killed, or when the wire stays cut for too long. A sender that is killed or gives
// up has sent it all the same.
func (n *network) carry(from, to *process) error {
	if !from.alive() {
		return errBroken(from.host, to.host)
	}
	n.mu.Lock()
	delay, patience := n.delay.draw(n.rng), n.patience.draw(n.rng)
	n.mu.Unlock()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	waiting := false // for the wire, no longer for the delay
	for {
		n.mu.Lock()
		stuck := n.cuts[wire{from.host, to.host}] || from.stopped || to.stopped
		changed := n.changed
		n.mu.Unlock()
		if waiting && !stuck {
			return nil
		}
		if !waiting {
			changed = nil
		}
		select {
		case <-timer.C:
			if waiting {
				return errBroken(from.host, to.host)
			}
			waiting = true
			timer.Reset(patience)
		case <-changed:
		case <-to.dead:
			return errBroken(from.host, to.host)
		}
	}
}
