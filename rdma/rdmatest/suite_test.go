package rdmatest

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// TestMain runs the tests, or an agent with a world of its own: nodes of the
// plain provider in different processes do not reach each other.
func TestMain(m *testing.M) {
	Main(m, newWorld().open)
}

// TestPlain runs the suite over the plain provider.
func TestPlain(t *testing.T) {
	Run(t, InProcess(newWorld().open), Options{Timeout: 100 * time.Millisecond, Window: 100 * time.Millisecond})
}

// sceneFor gives a test a scene without a behaviour.
func sceneFor(t *testing.T, c Cluster) *scene {
	o := Options{}
	o.ensureDefaults()
	return newSession(c, o).scene(t)
}

// TestLinks shows that nodes do the same wherever they are: that answers and
// errors come back, and that a process that dies is noticed.
func TestLinks(t *testing.T) {
	for _, c := range []struct {
		name    string
		cluster func(t *testing.T) Cluster
	}{
		{"InProcess", func(*testing.T) Cluster { return InProcess(newWorld().open) }},
		{"Processes", func(*testing.T) Cluster { return Processes() }},
		{"Remote", func(t *testing.T) Cluster { return Remote(startMachine(t)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := sceneFor(t, c.cluster(t))
			n := sc.start("linked", 1)
			if n.Provider != "plain" || n.Limits != plainLimits || (n.PID == os.Getpid()) == sc.session.cluster.processes() {
				t.Errorf("the node is %+v", n.opened)
			}
			r := n.region(1000)
			r.fill(sourceSeed)
			r.set(10, []byte{1, 2, 3})
			if got := r.get(9, 5); got[0] != pattern(sourceSeed, 9) || got[1] != 1 || got[3] != 3 || got[4] != pattern(sourceSeed, 13) {
				t.Errorf("the region has %x at 9", got)
			}
			if wrong := ask[string](n, doVerify{Region: r.number, Ground: sourceSeed}); !strings.Contains(wrong, "3 of 1000 bytes are wrong, the first at offset 10") {
				t.Errorf("three bytes were changed, and verify says %q", wrong)
			}
			if _, err := n.try(doRegister{Size: -1}); !errors.Is(err, rdma.ErrInvalid) || errors.Is(err, rdma.ErrInUse) {
				t.Errorf("a region of -1 bytes: %v, want ErrInvalid", err)
			}
			q := n.queue(rdma.CompletionQueueOptions{})
			if w := ask[waited](n, doWait{q.number, 1, time.Millisecond}); !errors.Is(w.Fault.err(), context.DeadlineExceeded) {
				t.Errorf("wait ended with %+v", w)
			}
			long := q.begin(1)
			if sc.session.cluster.processes() {
				n.kill()
				if _, err := long.try(); err == nil {
					t.Error("an operation of a dead process has an answer")
				}
				return
			}
			n.must(doCloseQueue{q.number})
			if w := take[waited](long); !errors.Is(w.Fault.err(), rdma.ErrClosed) {
				t.Errorf("wait on a closed queue ended with %+v", w)
			}
			n.finish()
		})
	}
}

// startMachine starts this program as the agent of a machine and returns its
// address.
func startMachine(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), agentVariable+"=127.0.0.1:0")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, address, ok := strings.Cut(lines.Text(), "listening on "); ok {
			return address
		}
	}
	t.Fatalf("the agent ended without an address: %v", lines.Err())
	return ""
}

// TestLeaksAreFound opens one of each kind behind the back of the alarm.
func TestLeaksAreFound(t *testing.T) {
	before := hold()
	before.patience = 10 * time.Millisecond
	if leaks := before.leaks(); len(leaks) > 0 {
		t.Fatalf("leaks before anything was opened: %q", leaks)
	}
	p, err := newWorld().open("leak")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { <-stop })
	want := []string{"goroutines: ", "open handle: 1 too many of plain provider"}
	if runtime.GOOS == "linux" {
		want = append(want, "open file: 2 too many of pipe:")
	}
	got := before.leaks()
	close(stop)
	wg.Wait()
	if err := errors.Join(p.Close(), r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("the leaks are %q, want %q", got, want)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("leak %d is %q, want %q", i, got[i], want[i])
		}
	}
	if leaks := before.leaks(); len(leaks) > 0 {
		t.Errorf("leaks after all was closed: %q", leaks)
	}
}
