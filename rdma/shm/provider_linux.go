package shm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
	"github.com/tenure-faas/tenure/rdma/internal/queue"
	"github.com/tenure-faas/tenure/rdma/internal/region"
)

// Provider implements rdma.Provider between the processes of one host.
type Provider struct {
	options  Options
	limits   rdma.Limits
	path     string // of the socket
	listener *net.UnixListener
	regions  region.Table
	exports  *exports
	ledger   rdma.Ledger
	handle   *handle.Handle
	// greetings has a place for every connection whose hello may be under way.
	greetings chan struct{}
	// wg has the goroutines of the listener.
	wg sync.WaitGroup

	// mu is locked after a queue pair's and a region's.
	mu       sync.Mutex
	pairs    map[uint32]*queuePair
	queues   map[*completionQueue]struct{}
	greeting map[*net.UnixConn]struct{}
	last     uint32 // number of the newest queue pair
	closed   bool
}

var _ rdma.Provider = (*Provider)(nil)

// Open opens a provider for the processes of this host and begins to listen. It
// fails with rdma.ErrNotSupported if the kernel lacks what it takes (Linux 5.3).
func Open(options Options) (*Provider, error) {
	options.EnsureDefaults()
	if err := options.Validate(); err != nil {
		return nil, err
	}
	if err := supported(); err != nil {
		return nil, err
	}
	p := &Provider{options: options, limits: limits(), greetings: make(chan struct{}, maxGreetings),
		pairs: map[uint32]*queuePair{}, queues: map[*completionQueue]struct{}{}, greeting: map[*net.UnixConn]struct{}{}}
	var err error
	if p.exports, err = newExports(); err != nil {
		return nil, fmt.Errorf("open shm: %w", err)
	}
	if err := p.listen(); err != nil {
		_, closeErr := p.exports.close()
		return nil, errors.Join(fmt.Errorf("open shm: %w", err), closeErr)
	}
	p.handle = handle.Open(p, "shm provider")
	p.wg.Go(p.accept)
	return p, nil
}

// supported says what this kernel, or a sandbox around it, does not let us do.
func supported() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("%w: shm needs pidfd_open of Linux 5.3 to be able to stop a peer: %w", rdma.ErrNotSupported, err)
	}
	_ = unix.Close(fd) // it was a test
	fd, m, err := memory.NewFileForReaders("tenure-test", pageSize)
	if err != nil {
		return fmt.Errorf("%w: shm needs sealed memory files of Linux 5.1: %w", rdma.ErrNotSupported, err)
	}
	return errors.Join(m.Unmap(), unix.Close(fd))
}

// Name implements rdma.Provider.
func (p *Provider) Name() string { return "shm" }

// Limits implements rdma.Provider.
func (p *Provider) Limits() rdma.Limits { return p.limits }

// Counters implements rdma.Provider.
func (p *Provider) Counters() []rdma.PeerCounters { return p.ledger.Counters() }

// Register implements rdma.Provider. The memory exists when it returns, so that
// nothing fails for lack of it later.
func (p *Provider) Register(size int) (rdma.Region, error) {
	if size <= 0 || size > p.limits.MaxRegion {
		return nil, fmt.Errorf("%w shm region of %d bytes (1..%d)", rdma.ErrInvalid, size, p.limits.MaxRegion)
	}
	fd, err := memory.NewFile("tenure-region", size)
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	m, err := memory.MapFile(fd, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("register: %w", err), unix.Close(fd))
	}
	x := &export{file: fd}
	r, err := p.regions.Register("shm", m, func() error { return p.withdraw(x) })
	if err != nil {
		return nil, errors.Join(err, m.Unmap(), unix.Close(fd))
	}
	if err := p.exports.add(x, r.Remote()); err != nil {
		return nil, errors.Join(fmt.Errorf("register: %w", err), r.Close())
	}
	p.eachPeer(func(l *link) {
		if l.conn != nil {
			_ = x.announce(l) // a peer that has no room in its socket can ask
		}
	})
	return r, nil
}

// eachPeer calls use with the link of every connected queue pair. Use must not
// block.
func (p *Provider) eachPeer(use func(*link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.pairs {
		if l := q.announced.Load(); l != nil {
			use(l)
		}
	}
}

// withdraw ends the access of peers to a region that is being closed: what they
// post from now on is refused. Requests that have begun end in memory that only
// the peers still map; the bell makes them unmap it.
func (p *Provider) withdraw(x *export) error {
	err := p.exports.remove(x)
	p.eachPeer((*link).ring)
	return err
}

// completionQueue counts as a handle of its provider.
type completionQueue struct {
	*queue.Completions
	provider *Provider
}

// NewCompletionQueue implements rdma.Provider.
func (p *Provider) NewCompletionQueue(options rdma.CompletionQueueOptions) (rdma.CompletionQueue, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("new completion queue: shm provider: %w", rdma.ErrClosed)
	}
	c, err := queue.NewCompletions("shm", options, &p.limits)
	if err != nil {
		return nil, err
	}
	q := &completionQueue{c, p}
	p.queues[q] = struct{}{}
	return q, nil
}

// Close implements rdma.CompletionQueue.
func (c *completionQueue) Close() error {
	if err := c.Completions.Close(); err != nil {
		return err
	}
	c.provider.mu.Lock()
	defer c.provider.mu.Unlock()
	delete(c.provider.queues, c)
	return nil
}

// Close implements rdma.Provider. It removes the socket and its directory.
func (p *Provider) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	if len(p.pairs) > 0 || len(p.queues) > 0 {
		defer p.mu.Unlock()
		return fmt.Errorf("close shm: %w: %d queue pairs and %d completion queues are open", rdma.ErrInUse, len(p.pairs), len(p.queues))
	}
	regions, err := p.exports.close()
	if regions > 0 {
		defer p.mu.Unlock()
		return fmt.Errorf("close shm: %w: %d regions are open", rdma.ErrInUse, regions)
	}
	p.closed = true
	err = errors.Join(err, p.listener.Close()) // removes the socket
	for conn := range p.greeting {
		_ = conn.Close() // whoever hesitated finds nobody here
	}
	p.mu.Unlock()
	p.wg.Wait()
	p.handle.Close()
	return errors.Join(err, os.Remove(filepath.Dir(p.path)))
}
