//go:build linux && cgo && rdma

package node_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/leasemgr/membership"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/rdma/wire"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/runtime/native"
	"github.com/tenure-faas/tenure/sdk/go"
	"github.com/tenure-faas/tenure/worker/service"
)

// TestVerbsCluster needs two or three machines with an rxe device each, of which
// the last one dies. The same test binary runs on all of them at the same time:
//
//	go test -c -tags rdma -o node.test ./internal/node
//	tenure certs --dir certs --host 10.77.0.1 --host 10.77.0.2 --host 10.77.0.3 node1 node2 node3
//	NODE=1 NODES=3 ./node.test -test.run '^TestVerbsCluster$'     on 10.77.0.1, and so on
//
// Node 1 has the leasemgr, a gateway, a worker and the load, each a process of its
// own; the others have a worker and an agent that obeys node 1:
//
//	node 1                                     node 2 (and 3)
//	driver ── agent's connection ────────────► agent (kills its machine when told)
//	leasemgr, gateway ── gRPC, mutual TLS ───► worker w2
//	worker w1 ═══════ verbs over eth0 ═══════► worker w2
const (
	verbsRoleEnv   = "TENURE_TEST_VERBS_ROLE"   // leasemgr, gateway or worker
	verbsNameEnv   = "TENURE_TEST_VERBS_NAME"   // of the worker
	verbsListenEnv = "TENURE_TEST_VERBS_LISTEN" // HOST:PORT
	verbsCertsEnv  = "TENURE_TEST_CERTS"        // directory of the certificates

	verbsControl = "7070" // the leasemgr's port
	verbsWorker  = "7071" // of the worker of each node
	verbsAgents  = "7473" // of the driver, for agents
	verbsHolders = "7474" // of the driver, for transactions that stay

	// verbsStart bounds all that starts, under emulation.
	verbsStart = 90 * time.Second
	// verbsTTL is the life of a membership, twice the default: on a busy host a
	// machine that is emulated stands still for a second or two, and is not dead.
	verbsTTL = 6 * time.Second
)

// verbsAddress is that of a node of the virtual network.
func verbsAddress(node int) string { return fmt.Sprintf("10.77.0.%d", node) }

// verbsNodes says which node this is, of how many; it skips the test elsewhere.
func verbsNodes(t *testing.T) (number, nodes int) {
	t.Helper()
	number, err := strconv.Atoi(os.Getenv("NODE"))
	if err == nil {
		nodes, err = strconv.Atoi(os.Getenv("NODES"))
	}
	if err != nil || nodes < 2 {
		t.Skip("needs two or three nodes with rxe: make test-rxe runs this on each of them")
	}
	return number, nodes
}

// verbsCredentials are those of this node.
func verbsCredentials() (rpc.Options, error) {
	dir := os.Getenv(verbsCertsEnv)
	if dir == "" {
		dir = "certs"
	}
	name := filepath.Join(dir, "node"+os.Getenv("NODE"))
	credentials, err := rpc.LoadCredentials(name+".crt", name+".key", filepath.Join(dir, "ca.crt"))
	return rpc.Options{Credentials: credentials}, err
}

// TestVerbsRole is the body of the processes of TestVerbsCluster.
func TestVerbsRole(t *testing.T) {
	role := os.Getenv(verbsRoleEnv)
	if role == "" {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	say := func(address string) error {
		_, err := fmt.Println("serving", address)
		return err
	}
	functions := nativeBank(t)
	stay, err := native.New(map[string]tenure.Handler{"write": verbsStay})
	if err != nil {
		t.Fatal(err)
	}
	functions["stay"] = stay
	secure, err := verbsCredentials()
	if err != nil {
		t.Fatal(err)
	}
	ctx, listen, control := context.Background(), os.Getenv(verbsListenEnv), net.JoinHostPort(verbsAddress(1), verbsControl)
	switch role {
	case "leasemgr":
		err = node.RunControl(ctx, node.ControlOptions{
			Listen: control, Data: t.TempDir(), RPC: secure, Native: functions, Logger: log, Ready: say,
			Members: membership.Options{TTL: verbsTTL},
		})
	case "worker":
		for err = node.ErrEvicted; errors.Is(err, node.ErrEvicted); { // as the command does
			err = node.RunWorker(ctx, node.WorkerOptions{
				Leasemgr: control, Listen: listen, Name: os.Getenv(verbsNameEnv), RPC: secure, Native: functions, Logger: log, Ready: say,
				Demand: machine.Demand{Provider: machine.ProviderVerbs, Scope: machine.ScopeCluster},
			})
			log.Warn("no member any more", "err", err)
		}
	case "gateway":
		err = node.RunGateway(ctx, node.GatewayOptions{
			Leasemgr: control, Listen: listen, RPC: secure, Native: functions, Logger: log,
			Ready: func(_ context.Context, url string) error { return say(url) },
		})
	}
	fmt.Fprintln(os.Stderr, "the process ended:", err)
	os.Exit(1)
}

// verbsStay writes a key and stays in its transaction, with the key, until the
// driver ends the connection that it makes.
func verbsStay(ctx *tenure.Context) ([]byte, error) {
	if err := ctx.Put("t", ctx.JSON().Get("k").String(), []byte("stay")); err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(verbsAddress(1), verbsHolders))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_, err = io.Copy(io.Discard, conn)
	return nil, err
}

// verbsProcess starts a process of this node, waits until it serves, and returns
// what it said. It is killed at the end of the test.
func verbsProcess(t *testing.T, role, name, listen string) (said string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestVerbsRole$")
	cmd.Env = append(os.Environ(), verbsRoleEnv+"="+role, verbsNameEnv+"="+name, verbsListenEnv+"="+listen)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // if it has not ended by itself, which the log tells
		_ = cmd.Wait()
		if t.Failed() {
			raw, _ := os.ReadFile(log.Name())
			t.Logf("%s:\n%s", name, raw[max(0, len(raw)-4000):])
		}
		log.Close()
	})
	late := time.AfterFunc(verbsStart, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if said, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
			return said
		}
	}
	t.Fatalf("%s does not serve", name)
	return ""
}

// TestVerbsCluster runs a cluster over machines. First, on two, the wire shows what
// leases cost; then one machine is killed under load.
func TestVerbsCluster(t *testing.T) {
	number, nodes := verbsNodes(t)
	if number > 1 {
		verbsAgent(t, number)
		return
	}
	c := startVerbs(t, nodes)
	if nodes == 2 {
		t.Run("cost on the wire", c.testCost)
	}
	if !t.Failed() {
		t.Run("a machine is killed", c.testKill)
	}
	for _, a := range c.agents {
		if _, err := fmt.Fprintln(a, "end"); err != nil {
			t.Errorf("an agent does not hear: %v", err)
		}
	}
}

// verbsAgent runs the worker of a node and does what the driver says.
func verbsAgent(t *testing.T, number int) {
	var conn net.Conn
	var err error
	for deadline := time.Now().Add(verbsStart); ; time.Sleep(100 * time.Millisecond) { // the driver may start later
		if conn, err = net.Dial("tcp", net.JoinHostPort(verbsAddress(1), verbsAgents)); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the driver is not there: %v", err)
		}
	}
	defer conn.Close()
	name := fmt.Sprint("w", number)
	verbsProcess(t, "worker", name, net.JoinHostPort(verbsAddress(number), verbsWorker))
	if _, err := fmt.Fprintln(conn, name); err != nil {
		t.Fatal(err)
	}
	word, err := bufio.NewReader(conn).ReadString('\n')
	switch {
	case err != nil:
		t.Fatalf("the driver is gone: %v", err)
	case word == "end\n":
		return
	}
	// At once, without a word to anybody: the connections just go silent.
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, conn)
	t.Fatalf("the machine lives on after the driver (%v)", err)
}

// verbsCluster is the cluster as the driver on node 1 sees it.
type verbsCluster struct {
	t       *testing.T
	nodes   int
	url     string
	leases  *leasemgr.Client
	counter *wire.Counter
	// agents are the connections to those of nodes 2 and up, by name of worker.
	agents map[string]net.Conn
	// workers are the stubs of all workers, by name.
	workers map[string]*service.Client
}

func startVerbs(t *testing.T, nodes int) *verbsCluster {
	c := &verbsCluster{t: t, nodes: nodes, agents: map[string]net.Conn{}, workers: map[string]*service.Client{}}
	counter, err := wire.Attach("eth0", wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.counter = counter
	t.Cleanup(func() {
		if err := counter.Close(); err != nil {
			t.Error(err)
		}
	})
	if !counter.Mode().Egress() {
		t.Fatalf("the wire counter is attached by %v and sees one direction only", counter.Mode())
	}
	control := verbsProcess(t, "leasemgr", "leasemgr", "")
	listener, err := net.Listen("tcp", net.JoinHostPort(verbsAddress(1), verbsAgents))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	verbsProcess(t, "worker", "w1", net.JoinHostPort(verbsAddress(1), verbsWorker))
	c.url = verbsProcess(t, "gateway", "gateway", "127.0.0.1:0")
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(verbsStart)); err != nil {
		t.Fatal(err)
	}
	for range nodes - 1 {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatalf("an agent does not come: %v", err)
		}
		t.Cleanup(func() { conn.Close() })
		name, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatalf("an agent has no worker: %v", err)
		}
		c.agents[strings.TrimSpace(name)] = conn
	}
	c.dial(control)
	return c
}

// dial connects to the leasemgr, waits until all workers are members, and connects
// to them.
func (c *verbsCluster) dial(control string) {
	secure, err := verbsCredentials()
	if err != nil {
		c.t.Fatal(err)
	}
	conn, err := rpc.Dial(control, secure)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	c.leases = leasemgr.NewClient(conn)
	view := c.await("all workers", func(p *leasemgr.Published) bool { return len(p.Members) == c.nodes })
	secure.MaxMessage = service.MessageBytes
	for _, m := range view.Members {
		if m.Provider != machine.ProviderVerbs {
			c.t.Fatalf("worker %s is reached by %s", m.Name, m.Provider)
		}
		conn, err := rpc.Dial(m.Address, secure)
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { conn.Close() })
		c.workers[m.Name] = service.NewClient(conn)
	}
	c.t.Logf("view %d: %+v", view.View, view.Members)
}

// await waits for a view that is as wanted.
func (c *verbsCluster) await(what string, wanted func(*leasemgr.Published) bool) leasemgr.Published {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), verbsStart)
	defer cancel()
	var state leasemgr.State
	for {
		next, err := c.leases.State(ctx, state.View, 5*time.Second)
		if err != nil {
			c.t.Fatalf("no view of %s: %v; the last one was %d: %+v", what, err, state.View, state.Members)
		}
		if state = next; wanted(&state.Published) {
			return state.Published
		}
	}
}

// now is the published view.
func (c *verbsCluster) now() leasemgr.Published {
	c.t.Helper()
	return c.await("anybody", func(p *leasemgr.Published) bool { return p.View > 0 })
}
