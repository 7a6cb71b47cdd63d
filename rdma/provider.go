package rdma

import (
	"context"
	"errors"
	"time"
)

// Errors that callers branch on; all others are faults of the machine or of the
// caller, with the details in their text.
var (
	// ErrQueueFull refuses requests beyond the depth of the send queue: poll
	// completions, then post the rest. Nothing of the rest was done.
	ErrQueueFull = errors.New("rdma: send queue is full")
	// ErrBroken refuses requests on a queue pair that failed, was revoked or is
	// not connected. Nothing was done.
	ErrBroken = errors.New("rdma: queue pair is broken or not connected")
	// ErrClosed refuses the use of a closed handle.
	ErrClosed = errors.New("rdma: closed")
	// ErrInUse refuses to close what other open handles need, or to go over a
	// limit of the provider or the depth of a completion queue; its text says what
	// is to be closed or polled.
	ErrInUse = errors.New("rdma: still in use")
	// ErrInvalid refuses a malformed request or option. Nothing was done.
	ErrInvalid = errors.New("rdma: invalid")
	// ErrNotSupported means that this machine or build cannot do it.
	ErrNotSupported = errors.New("rdma: not supported here")
)

// Provider is one way to reach the memory of other nodes. All methods of all
// its handles are safe for concurrent use. Handles are closed by whoever opened
// them: queue pairs first, then completion queues and regions, then the
// provider. To close a handle again does nothing and returns nil.
type Provider interface {
	// Name is "verbs", "shm", "tcp" or "sim". Queue pairs connect only to those
	// of a provider of the same name.
	Name() string
	// Limits says how much may be asked of this provider.
	Limits() Limits
	// Register maps size bytes of zeroed memory outside the Go heap, at least
	// 8-byte aligned, and opens them to every connected peer that knows the
	// RKey, for all verbs. It may take milliseconds and pins the memory.
	Register(size int) (Region, error)
	// NewCompletionQueue makes a queue for the completions of any number of
	// queue pairs whose depths add up to at most options.Depth.
	NewCompletionQueue(options CompletionQueueOptions) (CompletionQueue, error)
	// NewQueuePair makes an unconnected queue pair; its Address is known at once.
	NewQueuePair(options QueuePairOptions) (QueuePair, error)
	// Counters returns what was posted so far, by peer and opcode, including
	// closed queue pairs. It allocates and is for operators, not for hot paths.
	Counters() []PeerCounters
	// Close frees the device. It fails with ErrInUse, naming them, while handles
	// are open, and then closes nothing.
	Close() error
}

// Limits of a provider.
type Limits struct {
	// MaxMessage is the longest READ or WRITE, in bytes.
	MaxMessage int
	// MaxInline is the longest WRITE that may be posted Inline, in bytes.
	MaxInline int
	// MaxSendDepth and MaxReceiveDepth bound QueuePairOptions.
	MaxSendDepth, MaxReceiveDepth int
	// MaxCompletions bounds CompletionQueueOptions.Depth.
	MaxCompletions int
	// MaxRegion is the largest region, in bytes.
	MaxRegion int
}

// Region is registered memory of this node.
type Region interface {
	// Bytes is the memory. The provider of a peer may change it at any time
	// without the race detector noticing: load shared 8-byte words with Load,
	// copy everything else and check the copy. Invalid after Close.
	Bytes() []byte
	// Load loads the aligned word at offset atomically, as a CPU does.
	Load(offset int) uint64
	// Store stores the aligned word at offset atomically, as a CPU does. Not for
	// words that CAS or FAA may change at the same time.
	Store(offset int, value uint64)
	// Local names length bytes at offset as the local side of a request.
	Local(offset, length int) Local
	// Remote describes the region to peers, also after Close.
	Remote() RemoteRegion
	// Close ends all access by peers, then unmaps the memory. Requests of this
	// node that still use it fail. Of a peer's WRITE that Close meets half-way a
	// part may have landed: it ends as Done or Unknown.
	Close() error
}

// CompletionQueueOptions are the options of NewCompletionQueue.
type CompletionQueueOptions struct {
	// Depth is how many completions fit, 1..Limits.MaxCompletions; 0 means 1024.
	// Queue pairs reserve their share, so a queue never overflows. Completions of a
	// closed queue pair keep their places until they are polled; where they leave too
	// few, NewQueuePair fails with ErrInUse: poll the queue.
	Depth int
	// Spin is how long Wait looks at the queue before it sleeps; 0 means not at
	// all, which is right where threads are scarce.
	Spin time.Duration
}

// CompletionQueue collects the completions of queue pairs.
type CompletionQueue interface {
	// Poll moves up to len(dst) completions to dst and returns how many. It never
	// blocks. What it returns has left the send queue: its slots are free again.
	Poll(dst []Completion) int
	// Wait is Poll, but sleeps until there is at least one completion, ctx ends
	// (its error) or the queue is closed (ErrClosed). An idle Wait uses no CPU.
	Wait(ctx context.Context, dst []Completion) (int, error)
	// Close fails with ErrInUse while queue pairs use the queue. Completions that
	// nobody has polled are lost.
	Close() error
}

// QueuePairOptions are the options of NewQueuePair.
type QueuePairOptions struct {
	// Peer names the other node in counters, errors and logs. At most 64 bytes.
	Peer string
	// SendCQ gets the completions of requests posted here, ReceiveCQ those of
	// the peer's doorbells; nil ReceiveCQ means SendCQ. Of the same provider.
	SendCQ, ReceiveCQ CompletionQueue
	// SendDepth bounds the requests that are posted and not polled; 0 means 128.
	SendDepth int
	// ReceiveDepth bounds the doorbells of the peer that are not polled here;
	// 0 means 128.
	ReceiveDepth int
	// Timeout is how long the peer may be silent, while requests are outstanding,
	// before they fail as StatusUnreachable; 0 means one second. Devices round it,
	// to 0.7 to 1.4 times as much, and silence may take longer to be noticed: at most
	// 24 times Timeout plus 4 seconds, see Death in the package comment.
	Timeout time.Duration
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *QueuePairOptions) EnsureDefaults() {
	if o.ReceiveCQ == nil {
		o.ReceiveCQ = o.SendCQ
	}
	if o.SendDepth == 0 {
		o.SendDepth = 128
	}
	if o.ReceiveDepth == 0 {
		o.ReceiveDepth = 128
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
}

// QueuePair is one end of a connection of type RC: reliable, in order, to one
// peer. One side calls Accept with the other's address, then the other side
// calls Connect; addresses travel over the control plane (package rpc).
type QueuePair interface {
	// Number identifies the queue pair within its provider; completions carry it.
	Number() uint32
	// Address is what the peer needs to reach this end: opaque, at most
	// MaxAddress bytes.
	Address() []byte
	// Accept makes this the passive end of a connection. It does not wait for the
	// peer. Requests posted before the peer has connected wait for it, at most
	// Timeout. A queue pair is connected to itself by Accept and then Connect,
	// both with its own Address.
	Accept(remote []byte) error
	// Connect makes this the active end; the peer has accepted before. When it
	// returns nil, both ends may post. That does not say that the peer is there: a
	// device asks nobody, and the first request finds out. A provider that does ask
	// waits a few seconds at most, also if ctx has no deadline; one that does not may
	// look at ctx only once. A failed Connect leaves a broken queue pair.
	Connect(ctx context.Context, remote []byte) error
	// Post hands requests over in one crossing, in order, and returns how many
	// were taken. If not all were, err says why: ErrQueueFull, ErrBroken or
	// ErrInvalid; the rest was not done. Local memory of a request belongs to the
	// provider until its completion, Inline payloads only until Post returns: if the
	// request writes it (READ, CAS, FAA), no other outstanding request may name it,
	// not even with Fence, because that one may use the old bytes. Post does not wait for the peer and does not keep the slice. Batches of
	// concurrent callers do not interleave unless they are cut short. A peer that
	// has died may show by ErrBroken as well as by a completion.
	Post(requests []WorkRequest) (int, error)
	// Revoke breaks the queue pair; see the package comment for what holds when
	// it returns nil. Outstanding requests complete as StatusFlushed. After an
	// error nothing is certain; the process of the peer may have to be stopped.
	// Where peers execute requests themselves (shm), a peer that does not leave in
	// time is stopped by SIGKILL, by Close too.
	Revoke(ctx context.Context) error
	// Err is nil while the queue pair is usable or was never connected, and says
	// why it broke afterwards.
	Err() error
	// Counters returns what was posted here, by opcode.
	Counters() Counters
	// Close revokes and frees the queue pair. Completions that are not polled yet
	// stay in their queue and keep their places there until they are, so whoever
	// connects anew polls.
	Close() error
}

// MaxAddress is the longest address of a queue pair, in bytes.
const MaxAddress = 512
