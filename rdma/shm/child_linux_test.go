package shm

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

// childVariable in the environment makes this program a child: a process with
// one queue pair that does what its parent says.
const childVariable = "TENURE_SHM_TEST_CHILD"

// order is what a child is told, report what it says about it: an error if
// something went wrong that must not.
type order struct {
	// Do is "open", "connect", "post", "stream" or "echo".
	Do          string
	Size        int // open: of the region
	Timeout     time.Duration
	Address     []byte
	Requests    []rdma.WorkRequest
	Completions int // post: how many to wait for
}

type report struct {
	Error       string
	Address     []byte
	Remote      rdma.RemoteRegion
	Local       rdma.Local
	Refused     bool // by Post
	Completions []rdma.Completion
}

// childMain serves orders until the parent hangs up.
func childMain() int {
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	c := &childNode{out: out}
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return 0 // the parent has gone
		}
		r, err := c.do(&o)
		if err != nil {
			r.Error = err.Error()
		}
		if err := out.Encode(r); err != nil {
			return 1
		}
	}
}

// childNode is what a child has. It closes nothing: it dies.
type childNode struct {
	out    *gob.Encoder
	cq     rdma.CompletionQueue
	qp     rdma.QueuePair
	region rdma.Region
}

func (c *childNode) do(o *order) (r report, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	switch o.Do {
	case "open":
		err = c.open(o)
		if err == nil {
			r.Address, r.Remote, r.Local = c.qp.Address(), c.region.Remote(), c.region.Local(0, o.Size)
		}
	case "connect":
		err = c.qp.Connect(ctx, o.Address)
	case "post":
		if _, err := c.qp.Post(o.Requests); err != nil {
			r.Refused = true
			return r, nil
		}
		r.Completions, err = c.wait(ctx, o.Completions)
	case "stream":
		if err := c.out.Encode(report{}); err != nil { // it begins
			return r, err
		}
		r.Completions, err = c.stream(ctx, o.Requests)
	case "echo":
		if err := c.out.Encode(report{}); err != nil { // it begins
			return r, err
		}
		err = echo(context.Background(), c.qp, c.cq)
	default:
		err = fmt.Errorf("unknown order %q", o.Do)
	}
	return r, err
}

func (c *childNode) open(o *order) error {
	p, err := Open(Options{Directory: os.Getenv(directoryVariable)})
	if err != nil {
		return err
	}
	if c.region, err = p.Register(o.Size); err != nil {
		return err
	}
	if c.cq, err = p.NewCompletionQueue(rdma.CompletionQueueOptions{}); err != nil {
		return err
	}
	c.qp, err = p.NewQueuePair(rdma.QueuePairOptions{Peer: "parent", SendCQ: c.cq, Timeout: o.Timeout})
	return err
}

func (c *childNode) wait(ctx context.Context, n int) (all []rdma.Completion, err error) {
	for len(all) < n {
		got := make([]rdma.Completion, n-len(all))
		k, err := c.cq.Wait(ctx, got)
		if err != nil {
			return all, err
		}
		all = append(all, got[:k]...)
	}
	return all, nil
}

// stream posts requests again and again, with other data each time, until one
// fails; it returns that one's completion.
func (c *childNode) stream(ctx context.Context, requests []rdma.WorkRequest) ([]rdma.Completion, error) {
	for round := byte(1); ; round++ {
		for i, b := 0, c.region.Bytes(); i < len(b); i += 64 {
			b[i] = round
		}
		if _, err := c.qp.Post(requests); err != nil {
			return nil, err
		}
		done, err := c.wait(ctx, 1)
		if err != nil || done[0].Status != rdma.StatusOK {
			return done, err
		}
	}
}

// echo answers every doorbell by another, until the queue pair breaks.
func echo(ctx context.Context, qp rdma.QueuePair, cq rdma.CompletionQueue) error {
	bell := []rdma.WorkRequest{{Op: rdma.OpWriteImm}}
	done := make([]rdma.Completion, 1)
	for {
		if _, err := cq.Wait(ctx, done); err != nil {
			return err
		}
		if _, err := qp.Post(bell); err != nil {
			return err
		}
	}
}

// child is a child as its parent sees it.
type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	orders *gob.Encoder
	says   *gob.Decoder
	exited chan struct{}
	report // of open
}

// newChild starts a child with a region of size bytes. It is killed at the end
// of the test.
func newChild(t testing.TB, size int, timeout time.Duration) *child {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"=1", directoryVariable+"="+directory(t))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	c := &child{t: t, cmd: cmd, orders: gob.NewEncoder(in), says: gob.NewDecoder(out), exited: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(c.exited)
		_ = cmd.Wait() // killed, mostly
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be dead
		wg.Wait()
	})
	c.report = c.tell(order{Do: "open", Size: size, Timeout: timeout})
	return c
}

// tell gives an order and returns the report, which must be good.
func (c *child) tell(o order) report {
	c.t.Helper()
	must(c.t, c.orders.Encode(o))
	return c.listen()
}

func (c *child) listen() report {
	c.t.Helper()
	var r report
	if err := c.says.Decode(&r); err != nil {
		c.t.Fatalf("the child says nothing: %v", err)
	}
	if r.Error != "" {
		c.t.Fatalf("the child says: %s", r.Error)
	}
	return r
}

// post lets the child post one request, and returns how it ended.
func (c *child) post(w rdma.WorkRequest) rdma.Status {
	c.t.Helper()
	r := c.tell(order{Do: "post", Requests: []rdma.WorkRequest{w}, Completions: 1})
	if r.Refused {
		return rdma.StatusFlushed
	}
	return r.Completions[0].Status
}

// local names a part of the child's region.
func (c *child) local(offset, length int) rdma.Local {
	l := c.Local
	l.Addr, l.Length = l.Addr+uint64(offset), uint32(length)
	return l
}

// connect connects the child, as the active end, to a queue pair.
func (c *child) connect(qp *queuePair) {
	c.t.Helper()
	must(c.t, qp.Accept(c.Address))
	c.tell(order{Do: "connect", Address: qp.Address()})
}

// stop stops the child and returns when all of it stands still.
func (c *child) stop() {
	c.t.Helper()
	must(c.t, c.cmd.Process.Signal(syscall.SIGSTOP))
	for {
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			must(c.t, err)
			return
		}
	}
}

func (c *child) goOn() { must(c.t, c.cmd.Process.Signal(syscall.SIGCONT)) }

// kill kills the child and returns when it is dead.
func (c *child) kill() {
	c.t.Helper()
	must(c.t, c.cmd.Process.Kill())
	<-c.exited
}

// died waits for the child's end and says whether SIGKILL was its cause.
func (c *child) died() bool {
	c.t.Helper()
	select {
	case <-c.exited:
	case <-time.After(bound):
		c.t.Fatal("the child lives on")
	}
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
