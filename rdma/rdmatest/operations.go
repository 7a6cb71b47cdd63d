package rdmatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

// doOpen opens the provider of the node.
type doOpen struct{ Name string }

// opened describes a node.
type opened struct {
	Provider string
	Limits   rdma.Limits
	PID      int
}

func (o doOpen) run(a *agent) (any, error) {
	a.before = hold()
	p, err := a.open(o.Name)
	if err != nil {
		return nil, err
	}
	a.provider = p
	return opened{p.Name(), p.Limits(), os.Getpid()}, nil
}

// doHandles counts the open handles of the node's process.
type doHandles struct{}

// handleCounts are the open handles by kind, and those that were lost.
type handleCounts struct{ Open, Lost map[string]int }

func (doHandles) run(*agent) (any, error) {
	open, lost := handle.Counts()
	return handleCounts{open, lost}, nil
}

// doReset closes all handles but the provider.
type doReset struct{}

func (doReset) run(a *agent) (any, error) { return nil, a.reset() }

// doBreakOff closes all queue pairs and completion queues, so that whatever runs
// on them ends.
type doBreakOff struct{}

func (doBreakOff) run(a *agent) (any, error) { return nil, a.breakOff() }

// doFinish closes everything. Leaks asks for what was left open, which only
// makes sense for a node in a process of its own.
type doFinish struct{ Leaks bool }

// finished lists what the process has more of than before the provider was
// opened.
type finished struct{ Leaks []string }

func (o doFinish) run(a *agent) (any, error) {
	if a.provider == nil {
		return finished{}, nil
	}
	err := errors.Join(a.reset(), a.provider.Close())
	if !o.Leaks || err != nil {
		return finished{}, err
	}
	return finished{a.before.leaks()}, nil
}

// doDie kills the process of the node with SIGKILL. There is no answer.
type doDie struct{}

func (doDie) run(*agent) (any, error) { return nil, signal(os.Getpid(), syscall.SIGKILL) }

// doSignal sends a signal to a process on the machine of the node.
type doSignal struct {
	PID    int
	Signal syscall.Signal
}

func (o doSignal) run(*agent) (any, error) { return nil, signal(o.PID, o.Signal) }

func signal(pid int, s syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return errors.Join(p.Signal(s), p.Release())
}

// doCPUTime asks for the processor time that the node's process has used.
type doCPUTime struct{}

// cpuTime is user and system time.
type cpuTime struct{ Used time.Duration }

func (doCPUTime) run(*agent) (any, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return nil, err
	}
	return cpuTime{time.Duration(u.Utime.Nano() + u.Stime.Nano())}, nil
}

// doStacks asks for the stacks of all goroutines of the node's process.
type doStacks struct{}

func (doStacks) run(*agent) (any, error) {
	buf := make([]byte, 1<<18)
	return string(buf[:runtime.Stack(buf, true)]), nil
}

// doQueue makes a completion queue.
type doQueue struct{ Options rdma.CompletionQueueOptions }

func (o doQueue) run(a *agent) (any, error) {
	q, err := a.provider.NewCompletionQueue(o.Options)
	if err != nil {
		return nil, err
	}
	return uint64(keep(a, a.queues, q)), nil
}

// doCloseQueue closes a completion queue.
type doCloseQueue struct{ Queue int }

func (o doCloseQueue) run(a *agent) (any, error) { return nil, a.queue(o.Queue).Close() }

// doWait collects completions until there are Count, or Bound has passed.
type doWait struct {
	Queue, Count int
	Bound        time.Duration
}

// waited is what was collected, and why there is no more.
type waited struct {
	Completions []rdma.Completion
	Fault       *fault
}

func (o doWait) run(a *agent) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Bound)
	defer cancel()
	q := a.queue(o.Queue)
	var w waited
	for len(w.Completions) < o.Count {
		dst := make([]rdma.Completion, min(o.Count-len(w.Completions), 64))
		n, err := q.Wait(ctx, dst)
		w.Completions = append(w.Completions, dst[:n]...)
		if err != nil {
			w.Fault = faultOf(err)
			break
		}
		if n == 0 {
			return w, errors.New("wait returned no completion and no error")
		}
	}
	return w, nil
}

// doPoll takes what is there, at most Count.
type doPoll struct{ Queue, Count int }

func (o doPoll) run(a *agent) (any, error) {
	dst := make([]rdma.Completion, o.Count)
	n := a.queue(o.Queue).Poll(dst)
	return waited{Completions: dst[:n]}, nil
}

// doAll does several operations, one after the other, until one fails. It saves
// crossings where these are slow.
type doAll struct{ Operations []operation }

// answers are those of doAll, as far as it came.
type answers struct{ Answers []answer }

func (o doAll) run(a *agent) (any, error) {
	var all answers
	for _, op := range o.Operations {
		all.Answers = append(all.Answers, a.do(op))
		if f := all.Answers[len(all.Answers)-1].Fault; f != nil {
			return all, fmt.Errorf("%T: %w", op, f)
		}
	}
	return all, nil
}

// doPair makes a queue pair. The queues are numbers; 0 is none. NewCQ makes a
// completion queue for what is sent, and for doorbells if there is no other.
// Accept, if there is one, is the address of the active end.
type doPair struct {
	Options           rdma.QueuePairOptions // but for the queues
	SendCQ, ReceiveCQ int
	NewCQ             bool
	Accept            []byte
}

// paired describes a queue pair.
type paired struct {
	Pair    int
	Number  uint32
	Address []byte
	SendCQ  int
}

func (o doPair) run(a *agent) (any, error) {
	if o.NewCQ {
		q, err := a.provider.NewCompletionQueue(rdma.CompletionQueueOptions{})
		if err != nil {
			return nil, err
		}
		o.SendCQ = keep(a, a.queues, q)
	}
	if o.SendCQ != 0 {
		o.Options.SendCQ = a.queue(o.SendCQ)
	}
	if o.ReceiveCQ != 0 {
		o.Options.ReceiveCQ = a.queue(o.ReceiveCQ)
	}
	p, err := a.provider.NewQueuePair(o.Options)
	if err != nil {
		return nil, err
	}
	made := paired{keep(a, a.pairs, p), p.Number(), slices.Clone(p.Address()), o.SendCQ}
	if len(o.Accept) > 0 {
		_, err = doAccept{made.Pair, o.Accept}.run(a)
	}
	return made, err
}

// doAccept makes a queue pair the passive end.
type doAccept struct {
	Pair   int
	Remote []byte
}

func (o doAccept) run(a *agent) (any, error) {
	remote := slices.Clone(o.Remote)
	err := a.pair(o.Pair).Accept(remote)
	scribble(remote)
	return nil, err
}

// doConnect makes a queue pair the active end.
type doConnect struct {
	Pair   int
	Remote []byte
	Bound  time.Duration
}

func (o doConnect) run(a *agent) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Bound)
	defer cancel()
	remote := slices.Clone(o.Remote)
	err := a.pair(o.Pair).Connect(ctx, remote)
	scribble(remote)
	return nil, err
}

// scribble overwrites what a provider has no right to keep.
func scribble(b []byte) {
	for i := range b {
		b[i] = 0xa5
	}
}

// doPost posts requests in one call and then overwrites their slice, which the
// provider must not keep. Scribble, if its length is not 0, is local memory
// that is overwritten as well, as it may be after an inline WRITE. If all were
// taken it waits for Wait.Count completions; a negative count stands for as many
// as were taken.
type doPost struct {
	Pair     int
	Requests []rdma.WorkRequest
	Region   int
	Scribble [2]int // offset and length
	Wait     doWait
}

// posted says how many were taken, why not all, and what has completed.
type posted struct {
	Count  int
	Fault  *fault
	Waited waited
}

func (o doPost) run(a *agent) (any, error) {
	requests := slices.Clone(o.Requests)
	n, err := a.pair(o.Pair).Post(requests)
	if o.Scribble[1] > 0 {
		scribble(a.region(o.Region).Bytes()[o.Scribble[0]:][:o.Scribble[1]])
	}
	for i := range requests {
		requests[i] = rdma.WorkRequest{ID: 0xdead, Op: rdma.OpFAA, RemoteAddr: 0xdead0, CompareAdd: 1}
	}
	if n < 0 || n > len(o.Requests) || (n < len(o.Requests)) != (err != nil) {
		return nil, fmt.Errorf("post of %d requests returned %d and error %v", len(o.Requests), n, err)
	}
	p := posted{Count: n, Fault: faultOf(err)}
	if o.Wait.Count < 0 {
		o.Wait.Count = n
	} else if err != nil {
		o.Wait.Count = 0
	}
	if o.Wait.Count > 0 {
		w, err := o.Wait.run(a)
		if err != nil {
			return nil, err
		}
		p.Waited = w.(waited)
	}
	return p, nil
}

// doRevoke revokes a queue pair.
type doRevoke struct {
	Pair  int
	Bound time.Duration
}

func (o doRevoke) run(a *agent) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Bound)
	defer cancel()
	return nil, a.pair(o.Pair).Revoke(ctx)
}

// doClosePair closes a queue pair, and then a completion queue if Queue is not 0,
// of which it takes what was left there before.
type doClosePair struct{ Pair, Queue int }

func (o doClosePair) run(a *agent) (any, error) {
	err := a.pair(o.Pair).Close()
	if err != nil || o.Queue == 0 {
		return nil, err
	}
	v, err := doPoll{o.Queue, 16}.run(a)
	if err != nil {
		return nil, err
	}
	return v, a.queue(o.Queue).Close()
}

// doPairErr asks a queue pair for its error, and posts a request that it must
// refuse if that is not nil.
type doPairErr struct{ Pair int }

// state is the error of a queue pair and what Post said.
type state struct {
	Err   *fault
	Count int
	Post  *fault
}

func (o doPairErr) run(a *agent) (any, error) {
	p := a.pair(o.Pair)
	s := state{Err: faultOf(p.Err())}
	if s.Err != nil {
		n, err := p.Post([]rdma.WorkRequest{rdma.WriteImm(1<<62, rdma.Local{}, rdma.RemoteRegion{}, 0, 0xdead)})
		s.Count, s.Post = n, faultOf(err)
	}
	return s, nil
}

// doCounters asks for the counters of a queue pair (0: none) and of the provider.
type doCounters struct{ Pair int }

// counted are counters.
type counted struct {
	Pair     rdma.Counters
	Provider []rdma.PeerCounters
}

func (o doCounters) run(a *agent) (any, error) {
	c := counted{Provider: a.provider.Counters()}
	if o.Pair != 0 {
		c.Pair = a.pair(o.Pair).Counters()
	}
	return c, nil
}

// doCloseProvider closes the provider, which must fail while handles are open.
type doCloseProvider struct{}

func (doCloseProvider) run(a *agent) (any, error) { return nil, a.provider.Close() }
