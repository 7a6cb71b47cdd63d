package node_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rpc"
)

// insideEnv says that the process has a network namespace for itself.
const insideEnv = "TENURE_TEST_INSIDE"

// clientHost is where the test itself is.
const clientHost = "client"

// inside makes sure that the test runs in a network namespace of its own, in which
// it may do everything: it calls itself there, and returns false when that has
// ended. A test that is not allowed to gets a user namespace, too.
func inside(t *testing.T) bool {
	if os.Getenv(insideEnv) != "" {
		return true
	}
	deadline := "0" // none
	if at, ok := t.Deadline(); ok {
		deadline = (time.Until(at) - 2*time.Second).String() // it says where it hangs
	}
	args := []string{"-test.v", "-test.run=^" + t.Name() + "$", "-test.timeout=" + deadline}
	for _, name := range []string{"test.artifacts", "test.outputdir"} {
		if f := flag.Lookup(name); f != nil {
			args = append(args, "-"+name+"="+f.Value.String())
		}
	}
	cmd, out, err := unshared(args, syscall.CLONE_NEWNET)
	if errors.Is(err, os.ErrPermission) {
		cmd, out, err = unshared(args, syscall.CLONE_NEWNET|syscall.CLONE_NEWUSER)
	}
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.ENOSYS):
		t.Skipf("a network namespace is needed: be root, or allow user namespaces (sysctl user.max_user_namespaces): %v", err)
	case err != nil:
		t.Fatal(err)
	}
	skipped := false
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		skipped = skipped || strings.HasPrefix(lines.Text(), "--- SKIP")
		t.Log(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the test in a network namespace: %v", err)
	} else if skipped {
		t.SkipNow()
	}
	return false
}

// unshared starts this program again in new namespaces, where it is root.
func unshared(args []string, namespaces uintptr) (*exec.Cmd, io.Reader, error) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), insideEnv+"=1"), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	if namespaces&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return cmd, out, cmd.Start()
}

// startOnNetwork starts a cluster each process of which is a host of a network, with
// a certificate for its address.
func startOnNetwork(t *testing.T) (*faultyCluster, *network) {
	names := []string{clientHost, "leasemgr", "w1", "w2", "w3", "g1", "g2"}
	n, err := newNetwork(t, names...)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skipf("the kernel must allow network namespaces, and have bridges and veth (modprobe bridge veth): %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t)
	for _, name := range names {
		ca.issue(t, name, n.hosts[name].address)
	}
	c := startFaulty(t, site{
		listen: func(name string) string { return net.JoinHostPort(n.hosts[name].address.String(), "7070") },
		launch: n.launch,
		env:    []string{certsEnv + "=" + ca.dir},
	})
	strangers := newAuthority(t)
	strangers.issue(t, clientHost, n.hosts[clientHost].address)
	checkCredentials(t, c.control.said, ca, strangers)
	return c, n
}

// checkCredentials shows that the control plane answers those only whose
// certificates its CA has signed.
func checkCredentials(t *testing.T, address string, ours, strangers *authority) {
	t.Helper()
	load := func(identity *authority) rpc.Options {
		c, err := rpc.LoadCredentials(filepath.Join(identity.dir, clientHost+".crt"), filepath.Join(identity.dir, clientHost+".key"), filepath.Join(identity.dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return rpc.Options{Credentials: c}
	}
	ask := func(o rpc.Options) error {
		conn, err := rpc.Dial(address, o)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err = leasemgr.NewClient(conn).State(ctx, 0, 0)
		return err
	}
	if err := ask(load(ours)); err != nil {
		t.Fatalf("a process with a certificate: %v", err)
	}
	if ask(load(strangers)) == nil || ask(rpc.Options{Plain: true}) == nil {
		t.Fatal("the leasemgr answers processes without a certificate of its CA")
	}
}

// cutLasts is how long a cut lasts: some are shorter than the time-out of a
// membership, some longer.
func (c *faultyCluster) cutLasts() time.Duration {
	return time.Second + time.Duration(c.rng.IntN(5000))*time.Millisecond
}

// direction is which packets of a victim are lost.
type direction struct {
	name        string
	out, inward bool
}

func directions() []direction {
	return []direction{{"both ways", true, true}, {"out", true, false}, {"in", false, true}}
}

// between are the links of a direction from one host to another.
func (d direction) between(victim, other string) (links []link) {
	if d.out {
		links = append(links, link{victim, other})
	}
	if d.inward {
		links = append(links, link{other, victim})
	}
	return links
}

// heard is how long the leasemgr hears of a victim whose direction is cut.
func (d direction) heard() time.Duration {
	if d.out {
		return 0
	}
	return renewal()
}

// cutting cuts a victim off from everybody.
func (c *faultyCluster) cutting(n *network, d direction, victim *process) *fault {
	var links []link
	for other := range n.hosts {
		if other != victim.name {
			links = append(links, d.between(victim.name, other)...)
		}
	}
	lasts := c.cutLasts()
	return &fault{
		kind: "cut off, " + d.name, what: fmt.Sprintf("%s, for %v", victim.name, lasts), lasts: lasts,
		make: func() { n.cut(links...) }, mend: n.mend, hits: hitsVictim(victim, lasts), fromMend: victim == c.control, heard: d.heard(),
	}
}

// separating cuts the link between two processes that use one.
func (c *faultyCluster) separating(n *network, d direction, roles [2]string) *fault {
	a, b := c.victim(roles[0]), c.victim(roles[1])
	for a == b {
		b = c.victim(roles[1])
	}
	lasts := c.cutLasts()
	return &fault{
		kind: fmt.Sprintf("%s-%s link", roles[0], roles[1]), what: fmt.Sprintf("%s and %s, %s, for %v", a.name, b.name, d.name, lasts), lasts: lasts,
		make: func() { n.cut(d.between(a.name, b.name)...) }, mend: n.mend, heard: d.heard(),
		hits: func(p *probe, at string) effect {
			switch {
			case a.role == "gateway" && b.role == "worker" && p.gateway == a.name && at == b.name:
				return lost // the worker is a member, and the others reach it
			case a.role == "worker" && b.role == "leasemgr" && at == a.name:
				return affected
			case a.role == "worker" && b.role == "worker" && (at == a.name || at == b.name):
				return affected // one of them has to leave
			}
			return spared
		},
	}
}

// TestCutLinks cuts links of a cluster under load whose processes are on a network,
// each with an address and a certificate of its own: one process off from all
// others, both ways or one way, and two processes from each other. It checks what
// TestFaultsInCluster does.
func TestCutLinks(t *testing.T) {
	beside(t)
	if !inside(t) {
		return
	}
	c, n := startOnNetwork(t)
	roles := []string{"worker", "gateway", "leasemgr"}
	var kinds []func() *fault
	for _, d := range directions() {
		cards := deck[string]{all: roles}
		kinds = append(kinds, func() *fault { return c.cutting(n, d, c.victim(cards.deal(c.rng))) })
	}
	pairs := [][2]string{{"worker", "worker"}, {"worker", "leasemgr"}, {"gateway", "worker"}, {"gateway", "leasemgr"}}
	for _, pair := range pairs {
		ways := deck[direction]{all: directions()}
		kinds = append(kinds, func() *fault { return c.separating(n, ways.deal(c.rng), pair) })
	}
	c.endure(kinds...)
}
