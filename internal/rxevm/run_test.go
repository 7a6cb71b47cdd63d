package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// script starts a shell in place of a machine: what it prints is the console.
func script(t *testing.T, number int, text string, inherited ...*os.File) *node {
	t.Helper()
	n, err := start(number, []string{"sh", "-c", text}, inherited...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// forever is a machine that hangs. What it execs is killed with it.
const forever = "; exec sleep 1000"

func TestAttend(t *testing.T) {
	const ready = "echo rxevm T ready; "
	for _, c := range []struct {
		name    string
		scripts []string
		// output are lines that must be shown, in any order.
		output []string
		// mortal is the node that is to die; 0 is none.
		mortal int
		// results are what is said of the nodes, times apart; fault is a part of
		// the error.
		results []string
		fault   string
	}{
		{
			name:    "both succeed, one machine hangs afterwards",
			scripts: []string{ready + "echo one; echo; echo three; echo; echo rxevm T exit 0" + forever, ready + "printf 'two\\nrxevm T exit 0\\n'"},
			output:  []string{"node1| one", "node1| ", "node1| three", "node2| two"},
			results: []string{"exit 0", "exit 0"},
		},
		{
			name:    "one fails and the other would hang",
			scripts: []string{ready + "echo waiting" + forever, ready + "echo rxevm T exit 3" + forever},
			results: []string{"was ended", "exit 3"},
			fault:   "node 2 failed: exit 3",
		},
		{
			name:    "one dies while the payload runs",
			scripts: []string{ready + "echo panic >&2; kill -9 $$", ready + "exec sleep 1000"},
			output:  []string{"node1| panic"},
			results: []string{"died", "was ended"},
			fault:   "node 1 failed: died",
		},
		{
			name:    "one does not come up",
			scripts: []string{"echo rxevm T failed insmod rdma_rxe" + forever, "exec sleep 1000"},
			results: []string{"did not come up: insmod rdma_rxe", "was ended"},
			fault:   "node 1 failed: did not come up",
		},
		{
			name:    "one dies as it should, and the other goes on",
			scripts: []string{ready + "sleep 0.1; echo rxevm T exit 0" + forever, ready + "kill -9 $$"},
			mortal:  2,
			results: []string{"exit 0", "died as it should"},
		},
		{
			name:    "one should die and does not",
			scripts: []string{ready + "echo rxevm T exit 0" + forever, ready + "echo rxevm T exit 0" + forever},
			mortal:  2,
			results: []string{"exit 0", "exit 0"},
			fault:   "node 2 failed: exit 0 after",
		},
		{
			name:    "one that should die fails before",
			scripts: []string{ready + "exec sleep 1000", ready + "echo rxevm T exit 1" + forever},
			mortal:  2,
			results: []string{"was ended", "exit 1"},
			fault:   "node 2 failed: exit 1",
		},
		{
			name:    "one that should die does not come up",
			scripts: []string{ready + "exec sleep 1000", "kill -9 $$"},
			mortal:  2,
			results: []string{"was ended", "died"},
			fault:   "node 2 failed: died after",
		},
		{
			name:    "one that should die is ended because of another",
			scripts: []string{ready + "echo rxevm T exit 1" + forever, ready + "exec sleep 1000"},
			mortal:  2,
			results: []string{"exit 1", "was ended"},
			fault:   "node 1 failed: exit 1",
		},
		{
			name:    "a payload cannot say that it succeeded",
			scripts: []string{ready + "echo rxevm U exit 0; echo exit 0"},
			output:  []string{"node1| rxevm U exit 0"},
			results: []string{"died"},
			fault:   "node 1 failed",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var nodes []*node
			for i, s := range c.scripts {
				n := script(t, i+1, s)
				n.mortal = i+1 == c.mortal
				nodes = append(nodes, n)
			}
			var out bytes.Buffer
			err := attend(t.Context(), nodes, "T", time.Now(), &printer{out: &out}, nil)
			if (c.fault == "") != (err == nil) || err != nil && (!errors.Is(err, errNode) || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("the error is %v, want %q", err, c.fault)
			}
			if err != nil && strings.Count(err.Error(), "node") != 1 {
				t.Errorf("the error blames more than the one: %v", err)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			for _, want := range c.output {
				if !slices.Contains(lines, want) {
					t.Errorf("no line %q in\n%s", want, out.String())
				}
			}
			for i, want := range c.results {
				if got := nodes[i].result.String(); !strings.HasPrefix(got, want) {
					t.Errorf("node %d: %s, want %s", i+1, got, want)
				}
			}
		})
	}
}

// TestAttendKeepsServers has a node whose payload has exited, and which must stay
// there until the other one has heard of it.
func TestAttendKeepsServers(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	nodes := []*node{
		script(t, 1, "echo rxevm T exit 0; echo still here; echo word >&3; exit 1", write),
		script(t, 2, "read word <&3; echo $word; echo rxevm T exit 0"+forever, read),
	}
	if err := errors.Join(read.Close(), write.Close()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := attend(t.Context(), nodes, "T", time.Now(), &printer{out: &out}, nil); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"node1| still here\n", "node2| word\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
}

// cancelWhen is an output that ends a run as soon as a text appears.
type cancelWhen struct {
	bytes.Buffer
	text string
	end  context.CancelFunc
}

func (c *cancelWhen) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.text)) {
		c.end()
	}
	return c.Buffer.Write(p)
}

func TestAttendEndsWithContext(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	defer end()
	out := &cancelWhen{text: "node1| hanging", end: end}
	nodes := []*node{script(t, 1, "echo hanging"+forever), script(t, 2, "echo rxevm T ready; echo rxevm T exit 0")}
	err := attend(ctx, nodes, "T", time.Now(), &printer{out: out}, nil)
	if !errors.Is(err, errNode) || !strings.Contains(err.Error(), "node 1 failed: was ended") {
		t.Errorf("the error is %v", err)
	}

	over, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	err = attend(over, []*node{script(t, 1, "exec sleep 1000")}, "T", time.Now(), &printer{out: new(bytes.Buffer)}, nil)
	if err == nil || !strings.Contains(err.Error(), "--timeout") {
		t.Errorf("the error after the deadline is %v", err)
	}
}

func TestStartInherits(t *testing.T) {
	file, err := os.Open(writeFile(t, []byte("rxevm T exit 0\n"), t.TempDir(), "inherited"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		t.Fatal(err)
	}
	n := script(t, 1, "cat <&3", file)
	if err := attend(t.Context(), []*node{n}, "T", time.Now(), &printer{out: new(bytes.Buffer)}, nil); err != nil {
		t.Error(err)
	}
	if _, err := start(1, []string{filepath.Join(t.TempDir(), "absent")}); err == nil {
		t.Error("a program that is missing was started")
	}
}

func TestLogs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	l, err := openLogs(dir, [][]string{{"qemu", "-a"}, {"qemu", "-b"}})
	if err != nil {
		t.Fatal(err)
	}
	n := script(t, 2, "echo hello; echo rxevm T exit 0")
	n.wait("T", time.Now(), &printer{out: new(bytes.Buffer)}, l.of(1), func() {})
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"node1.command": "qemu -a\n", "node2.command": "qemu -b\n", "node1.log": "", "node2.log": "hello\nrxevm T exit 0\n",
	} {
		if raw, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(raw) != want {
			t.Errorf("%s has %q, %v; want %q", name, raw, err, want)
		}
	}
	if l, err := openLogs("", nil); err != nil || l.of(0) == nil || l.close() != nil {
		t.Errorf("without a directory: %v, %v", l, err)
	}
}
