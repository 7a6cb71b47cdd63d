package rdmatest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// Cluster is where the nodes of a suite run: InProcess, Processes or Remote.
type Cluster interface {
	// start starts a node; site is 0 or 1, for the machine.
	start(name string, site int) (link, error)
	// processes says whether nodes have processes of their own, which can be
	// stopped and killed, and whose leaks are their own.
	processes() bool
	// kill ends a node that has no process of its own. Its provider is closed
	// afterwards.
	kill(name string)
}

// link is the way to a node.
type link interface {
	// send hands an operation over. The channel, of capacity 1, gets its answer.
	send(op operation) <-chan answer
	// close lets the node go and frees the link. The provider was closed before, or
	// the node was killed.
	close() error
	// abandon lets a node go in which something hangs.
	abandon()
}

// InProcess runs nodes as providers opened in this process. Such nodes do not
// die, they close everything abruptly, and are never stopped.
func InProcess(open func(name string) (rdma.Provider, error)) Cluster {
	return inProcess{open, func(string) {}}
}

// Simulated is InProcess with a death: kill takes a node from its peers as
// SIGKILL would. Whatever is called on its handles afterwards may fail, but for
// Close.
func Simulated(open func(name string) (rdma.Provider, error), kill func(name string)) Cluster {
	return inProcess{open, kill}
}

type inProcess struct {
	open func(string) (rdma.Provider, error)
	end  func(string)
}

func (inProcess) processes() bool { return false }

func (c inProcess) kill(name string) { c.end(name) }

func (c inProcess) start(string, int) (link, error) { return &localLink{agent: newAgent(c.open)}, nil }

type localLink struct {
	agent   *agent
	running sync.WaitGroup
}

func (l *localLink) send(op operation) <-chan answer {
	c := make(chan answer, 1)
	l.running.Go(func() { c <- l.agent.do(op) })
	return c
}

func (l *localLink) close() error {
	l.running.Wait()
	return nil
}

// abandon waits for nothing, because what hangs may hang for ever, and leaves the
// memory, at which it may be looking.
func (l *localLink) abandon() { l.send(doBreakOff{}) }

// Processes runs each node in a process of its own: this program, started again
// as an agent (see Main), so that it can be killed with SIGKILL.
func Processes() Cluster { return inProcesses{} }

type inProcesses struct{}

func (inProcesses) processes() bool { return true }

func (inProcesses) kill(string) {}

func (inProcesses) start(string, int) (link, error) {
	fromUs, toUs := [2]*os.File{}, [2]*os.File{}
	var err, err2 error
	fromUs[0], fromUs[1], err = os.Pipe()
	toUs[0], toUs[1], err2 = os.Pipe()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	cmd, err := agentCommand(fromUs[0], toUs[1])
	if err == nil {
		err = cmd.Start()
	}
	// The child has its own.
	err = errors.Join(err, fromUs[0].Close(), toUs[1].Close())
	if err != nil {
		return nil, errors.Join(err, fromUs[1].Close(), toUs[0].Close())
	}
	return newRemoteLink(pipe{toUs[0], fromUs[1]}, cmd), nil
}

// Remote runs some of the nodes on another machine and the others here, each in
// a process of its own. The same program was started there with
// TENURE_RDMA_AGENT=host:port, which is address; it listens there.
func Remote(address string) Cluster { return remote{address: address} }

type remote struct {
	inProcesses
	address string
}

func (c remote) start(name string, site int) (link, error) {
	if site == 0 {
		return c.inProcesses.start(name, site)
	}
	conn, err := net.DialTimeout("tcp", c.address, 10*time.Second)
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", name, err)
	}
	return newRemoteLink(conn, nil), nil
}

// remoteLink leads to an agent in another process.
type remoteLink struct {
	client  *rpc.Client
	process *exec.Cmd // nil if it runs on another machine
	running sync.WaitGroup
}

func newRemoteLink(conn io.ReadWriteCloser, process *exec.Cmd) *remoteLink {
	wireTypes()
	return &remoteLink{client: rpc.NewClient(conn), process: process}
}

func (l *remoteLink) send(op operation) <-chan answer {
	c := make(chan answer, 1)
	request, reply := any(op), new(any)
	call := l.client.Go("Agent.Do", &request, reply, make(chan *rpc.Call, 1))
	l.running.Go(func() {
		if <-call.Done; call.Error != nil {
			c <- answer{done{}, faultOf(fmt.Errorf("the process of the node does not answer: %w", call.Error))}
			return
		}
		c <- (*reply).(answer)
	})
	return c
}

func (l *remoteLink) abandon() { _ = l.close() } // the failure was reported already

// close ends the connection, at which the agent exits, or kills it if it is a
// child: then it is certain to be gone afterwards.
func (l *remoteLink) close() error {
	err := l.client.Close()
	if errors.Is(err, rpc.ErrShutdown) {
		err = nil // the agent went first
	}
	l.running.Wait()
	if l.process != nil {
		_ = l.process.Process.Kill() // it may be gone already
		_ = l.process.Wait()         // killed, which is what was wanted
	}
	return err
}
