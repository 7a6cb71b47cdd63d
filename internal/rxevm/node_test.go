package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestMachineCommand(t *testing.T) {
	m := machine{qemu: "/bin/qemu", image: "/cache/vmlinux", memory: 640, cpus: 3, nodes: 3, token: "T"}
	for _, c := range []struct {
		node, sockets int
		want          []string // consecutive arguments, joined
		no            string
	}{
		{1, 2, []string{
			"/bin/qemu ", "-smp 3 -m 640", "-kernel /cache/vmlinux -initrd /dev/fd/3",
			" no_timer_check ", "NODE=1 NODES=3 IP=10.77.0.1 RXEVM_TOKEN=T",
			"netdev=card,mac=52:54:00:77:00:01,host_mtu=4200",
			"socket,id=cable0,fd=4 -netdev hubport,id=plug0,hubid=0,netdev=cable0",
			"socket,id=cable1,fd=5 -netdev hubport,id=plug1,hubid=0,netdev=cable1",
		}, "fd=6"},
		{3, 1, []string{"NODE=3 NODES=3 IP=10.77.0.3", "mac=52:54:00:77:00:03", "cable0,fd=4"}, "fd=5"},
	} {
		got := strings.Join(m.command(c.node, c.sockets), " ")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("node %d: no %q in %s", c.node, want, got)
			}
		}
		if strings.Contains(got, c.no) {
			t.Errorf("node %d: %q in %s", c.node, c.no, got)
		}
	}
}

// TestNetwork shows the shape of the cables: what node 1 writes to one of its
// ends comes out at the other node's.
func TestNetwork(t *testing.T) {
	for nodes, want := range map[int][]int{1: {1, 1}, 2: {1, 1}, 3: {2, 1, 1}} {
		w, err := newNetwork(nodes)
		if err != nil {
			t.Fatal(err)
		}
		var sockets []int
		for n, ends := range w.ends {
			sockets = append(sockets, len(ends))
			if n == 0 {
				continue
			}
			talk(t, w.ends[0][n-1], ends[0])
			talk(t, ends[0], w.ends[0][n-1])
		}
		if !slices.Equal(sockets, want) {
			t.Errorf("%d nodes have %v sockets, want %v", nodes, sockets, want)
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}
}

// talk passes a text from one end to the other.
func talk(t *testing.T, from, to *os.File) {
	t.Helper()
	if _, err := from.WriteString("frame"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	if n, err := to.Read(got); err != nil || string(got[:n]) != "frame" {
		t.Errorf("%q came, %v", got[:n], err)
	}
}
