package node_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/rpc"
)

const (
	roleEnv   = "TENURE_TEST_ROLE"   // leasemgr, worker or gateway
	targetEnv = "TENURE_TEST_TARGET" // the leasemgr's data directory, or its address
	listenEnv = "TENURE_TEST_LISTEN"
	nameEnv   = "TENURE_TEST_NAME"
	// certsEnv is the directory of certificates; without it connections are plain.
	certsEnv = "TENURE_TEST_CERTS"
)

// TestRole is the body of the processes of a faultyCluster.
func TestRole(t *testing.T) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	say := func(address string) error {
		_, err := fmt.Println("serving", address)
		return err
	}
	target, listen, name := os.Getenv(targetEnv), os.Getenv(listenEnv), os.Getenv(nameEnv)
	secure, err := credentialsOf(name)
	if err != nil {
		t.Fatal(err)
	}
	switch role {
	case "leasemgr":
		err = node.RunControl(context.Background(), node.ControlOptions{Listen: listen, Data: target, RPC: secure, Native: nativeBank(t), Logger: log, Ready: say})
	case "worker":
		for err = node.ErrEvicted; errors.Is(err, node.ErrEvicted); { // as the command does
			err = node.RunWorker(context.Background(), node.WorkerOptions{
				Leasemgr: target, Listen: listen, Name: name, Demand: demandAt(listen), RPC: secure, Native: nativeBank(t), Logger: log, Ready: say,
			})
			log.Warn("no member any more", "err", err)
		}
	case "gateway":
		err = node.RunGateway(context.Background(), node.GatewayOptions{
			Leasemgr: target, Listen: listen, RPC: secure, Native: nativeBank(t), Logger: log,
			Ready: func(_ context.Context, url string) error { return say(url) },
		})
	}
	fmt.Fprintln(os.Stderr, "the process ended:", err)
	os.Exit(1)
}

// credentialsOf are the certificates of a process or, without any, plain
// connections.
func credentialsOf(name string) (o rpc.Options, err error) {
	if dir := os.Getenv(certsEnv); dir != "" {
		o.Credentials, err = rpc.LoadCredentials(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"), filepath.Join(dir, "ca.crt"))
	}
	return o, err
}

// demandAt asks for verbs that reach a worker at the host it listens on.
func demandAt(listen string) machine.Demand {
	host, _, err := net.SplitHostPort(listen)
	address, err2 := netip.ParseAddr(host)
	if err != nil || err2 != nil || address.IsLoopback() {
		return machine.Demand{}
	}
	return machine.Demand{Provider: machine.ProviderTCP, Scope: machine.ScopeCluster, Advertise: address}
}

// process is one process of a cluster, in one start after another.
type process struct {
	t                          *testing.T
	role, name, target, listen string
	// env is added to the environment of the process.
	env []string
	// launch starts the command, where it belongs.
	launch func(*exec.Cmd) error
	log    *os.File
	said   string
	cmd    *exec.Cmd
	// ended is closed when the process of this start has ended.
	ended   chan struct{}
	waiting sync.WaitGroup
}

// start starts the process and waits until it serves; it listens at the same
// address again.
func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0], "-test.run=^TestRole$")
	p.cmd.Env = append(append(os.Environ(), p.env...), roleEnv+"="+p.role, nameEnv+"="+p.name, targetEnv+"="+p.target, listenEnv+"="+p.listen)
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.launch(p.cmd)
	}
	if err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	p.ended = make(chan struct{})
	served := false
	lines := bufio.NewScanner(out)
	for !served && lines.Scan() {
		var said string
		if said, served = strings.CutPrefix(lines.Text(), "serving "); served && p.said == "" { // later it says the same, and clients look
			p.said, p.listen = said, strings.TrimPrefix(said, "http://")
		}
	}
	// What it says later, when it joins again, fits into the pipe.
	ended, cmd := p.ended, p.cmd
	p.waiting.Go(func() {
		_ = cmd.Wait() // it is killed at last
		close(ended)
	})
	if !served {
		p.kill()
		p.t.Fatalf("%s does not serve", p.name)
	}
}

// alive says whether the process has not ended.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("signal %v to %s: %v", s, p.name, err)
	}
}

// kill ends the process at once, also one that stands still.
func (p *process) kill() {
	if p.alive() {
		p.signal(syscall.SIGKILL)
	}
	p.waiting.Wait()
}
