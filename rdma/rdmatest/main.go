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
	"syscall"
	"testing"

	"github.com/tenure-faas/tenure/rdma"
)

// agentVariable in the environment makes Main serve as an agent: "pipe" on the
// files 3 (operations) and 4 (answers), or HOST:PORT to listen there and start
// a process with "pipe" for every connection.
const agentVariable = "TENURE_RDMA_AGENT"

// Main is the body of TestMain. In a process that was started as an agent
// (environment variable TENURE_RDMA_AGENT set) it serves nodes with providers
// from open and never returns. Otherwise it runs the tests, then checks for
// leaks of handles, goroutines, files and mappings, and exits.
func Main(m *testing.M, open func(name string) (rdma.Provider, error)) {
	switch where := os.Getenv(agentVariable); where {
	case "":
		os.Exit(guarded(m.Run))
	case "pipe":
		wakePoller()
		serve(open, pipe{polled(3, "operations"), polled(4, "answers")})
		os.Exit(0)
	default:
		fmt.Fprintln(os.Stderr, "rdmatest:", serveMachine(where))
		os.Exit(1)
	}
}

// guarded runs the tests and turns leaks into a failure.
func guarded(run func() int) int {
	wakePoller()
	before := hold()
	code := run()
	if code != 0 {
		return code // a failed test may have left anything open
	}
	for _, leak := range before.leaks() {
		fmt.Fprintln(os.Stderr, "rdmatest: leak:", leak)
		code = 1
	}
	return code
}

// wakePoller makes the runtime open the files of its poller, which would
// otherwise look like leaks of whoever uses it first.
func wakePoller() {
	if r, w, err := os.Pipe(); err == nil {
		_ = errors.Join(r.Close(), w.Close()) // nothing was written
	}
}

// polled is an inherited file, read by way of the runtime's poller. A goroutine in
// a blocking read would keep its processor until somebody takes it away, and an
// operation that it has just started was once seen to wait for that for a minute.
func polled(fd uintptr, name string) *os.File {
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		panic(fmt.Sprintf("rdmatest: file %d of an agent: %v", fd, err))
	}
	return os.NewFile(fd, name)
}

// pipe is the agent's end of a link.
type pipe struct{ operations, answers *os.File }

// Read reads operations.
func (p pipe) Read(b []byte) (int, error) { return p.operations.Read(b) }

// Write writes answers.
func (p pipe) Write(b []byte) (int, error) { return p.answers.Write(b) }

// Close closes both files.
func (p pipe) Close() error { return errors.Join(p.operations.Close(), p.answers.Close()) }

// service is what an agent offers to its driver.
type service struct{ agent *agent }

// Do carries out one operation. Net/rpc wants exported types or none: both
// travel as interfaces.
func (s *service) Do(op any, reply *any) error {
	o, ok := op.(operation)
	if !ok {
		return fmt.Errorf("%T is no operation", op)
	}
	*reply = s.agent.do(o)
	return nil
}

// serve serves one node until the driver goes.
func serve(open func(string) (rdma.Provider, error), conn io.ReadWriteCloser) {
	wireTypes()
	server := rpc.NewServer()
	if err := server.RegisterName("Agent", &service{newAgent(open)}); err != nil {
		panic(err)
	}
	server.ServeConn(conn)
}

// serveMachine listens at address and starts a process for every node that a
// driver asks for.
func serveMachine(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the process ends
	fmt.Fprintln(os.Stderr, "rdmatest: an agent is listening on", l.Addr())
	var children sync.WaitGroup
	defer children.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		if err := serveConnection(&children, conn.(*net.TCPConn)); err != nil {
			fmt.Fprintln(os.Stderr, "rdmatest: no agent for", conn.RemoteAddr(), err)
		}
	}
}

// serveConnection hands a connection to a new process.
func serveConnection(children *sync.WaitGroup, conn *net.TCPConn) error {
	defer conn.Close() //nolint:errcheck // the child has its own
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // the child has its own
	cmd, err := agentCommand(file, file)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	children.Go(func() { _ = cmd.Wait() }) // killed, or told to end: nobody minds how
	return nil
}

// agentCommand starts this program again, as an agent on two files.
func agentCommand(operations, answers *os.File) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), agentVariable+"=pipe")
	cmd.ExtraFiles = []*os.File{operations, answers}
	cmd.Stderr, cmd.Stdout = os.Stderr, os.Stderr
	return cmd, nil
}
