package pebble_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store/pebble"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(fsyncChildEnv); dir != "" {
		fsyncChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, fs vfs.FS, dir string) *pebble.Engine {
	t.Helper()
	e, err := pebble.Open(pebble.Options{Dir: dir, FS: fs, CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func appendSet(t *testing.T, e *pebble.Engine, view base.View, key, value string) (base.Number, error) {
	t.Helper()
	b := e.NewBatch()
	defer b.Release()
	b.Set([]byte(key), []byte(value))
	return e.Append(view, b)
}

func closeEngine(t *testing.T, e *pebble.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestAppendIsVisibleBeforeItIsDurable(t *testing.T) {
	fs := vfs.NewCrashableMem()
	e := open(t, fs, "db")
	defer closeEngine(t, e)
	if n, err := appendSet(t, e, 1, "k", "v"); err != nil || n != 1 {
		t.Fatal(err)
	}
	v, found, err := e.Get([]byte("<"), []byte("k"))
	if err != nil || !found || string(v) != "<v" {
		t.Fatalf("got %q, %t, %v", v, found, err)
	}
	if e.Durable() != 0 {
		t.Error("durable without a sync")
	}
	lost := open(t, fs.CrashClone(vfs.CrashCloneCfg{}), "db")
	if _, found, _ := lost.Get(nil, []byte("k")); found {
		t.Error("an unsynced batch survived: the test cannot tell durable from not")
	}
	closeEngine(t, lost)
	if err := e.WaitDurable(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	kept := open(t, fs.CrashClone(vfs.CrashCloneCfg{}), "db")
	defer closeEngine(t, kept)
	if _, found, _ := kept.Get(nil, []byte("k")); !found || e.Durable() != 1 {
		t.Error("a batch is lost after WaitDurable")
	}
}

func TestGroupCommitSharesSyncs(t *testing.T) {
	e := open(t, vfs.Default, t.TempDir())
	defer closeEngine(t, e)
	const writers, each = 16, 50
	var numbers sync.Map
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				n, err := appendSet(t, e, 1, fmt.Sprint("k", w, "-", i), "v")
				if _, double := numbers.LoadOrStore(n, true); double || n < 1 || n > writers*each {
					t.Errorf("number %d of %d batches was given twice, or is none", n, writers*each)
				}
				if err == nil {
					err = e.WaitDurable(t.Context(), n)
				}
				if err != nil || e.Durable() < n {
					t.Errorf("batch %d: %v, durable %d", n, err, e.Durable())
				}
			}
		})
	}
	wg.Wait()
	if syncs := e.Syncs(); syncs == 0 || syncs > writers*each/2 {
		t.Errorf("%d syncs for %d batches of %d writers", syncs, writers*each, writers)
	} else {
		t.Logf("%d syncs for %d batches", syncs, writers*each)
	}
}

func TestWaitDurableHonoursItsContext(t *testing.T) {
	// A disk that never finishes a sync until it is told to.
	stuck, release := make(chan struct{}, 64), make(chan struct{})
	var armed atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			stuck <- struct{}{}
			<-release
		}
		return nil
	}))
	e := open(t, fs, "db")
	defer closeEngine(t, e)
	armed.Store(true)
	if n, err := appendSet(t, e, 1, "k", "v"); err != nil || n != 1 {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.WaitDurable(context.Background(), 1); err != nil {
			t.Error(err)
		}
	})
	<-stuck // the leader is in the kernel
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.WaitDurable(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a follower whose context ended got %v", err)
	}
	armed.Store(false)
	close(release)
	wg.Wait()
}

func TestSealRefusesOlderViews(t *testing.T) {
	dir := t.TempDir()
	e := open(t, vfs.Default, dir)
	if _, err := appendSet(t, e, 3, "a", "v"); err != nil {
		t.Fatal(err)
	}
	if err := e.Seal(4); err != nil {
		t.Fatal(err)
	}
	if _, err := appendSet(t, e, 3, "b", "v"); base.KindOf(err) != base.Unavailable {
		t.Errorf("a batch of view 3 after the seal for view 4: %v", err)
	}
	if _, found, _ := e.Get(nil, []byte("b")); found {
		t.Error("the refused batch is there")
	}
	if err := e.Seal(2); err == nil {
		t.Error("the seal went back")
	}
	if n, err := appendSet(t, e, 4, "c", "v"); err != nil || n != 2 {
		t.Errorf("a batch of the sealed view: %v", err)
	}
	closeEngine(t, e)
	e = open(t, vfs.Default, dir)
	defer closeEngine(t, e)
	if e.Sealed() != 4 {
		t.Errorf("the seal is %d after a restart", e.Sealed())
	}
	if _, found, _ := e.Get(nil, []byte("c")); !found {
		t.Error("Close lost an appended batch")
	}
}

func TestTwoProcessesCannotShareAStore(t *testing.T) {
	dir := t.TempDir()
	e := open(t, vfs.Default, dir)
	defer closeEngine(t, e)
	if _, err := pebble.Open(pebble.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
}

const fsyncChildEnv = "TENURE_TEST_FSYNC_CHILD"

// fsyncChild writes and acknowledges until the disk refuses a sync. It must
// not get past that.
func fsyncChild(dir string) {
	var syncs atomic.Int32
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
		if sync && strings.HasSuffix(op.Path, ".log") && syncs.Add(1) > 20 {
			return errors.New("input/output error")
		}
		return nil
	}))
	e, err := pebble.Open(pebble.Options{Dir: dir, FS: fs})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	for n := 1; n <= 1000; n++ {
		b := e.NewBatch()
		b.Set([]byte("k"+strconv.Itoa(n)), []byte("v"))
		number, err := e.Append(1, b)
		if err == nil {
			err = e.WaitDurable(context.Background(), number)
		}
		if err != nil {
			os.Exit(4)
		}
		fmt.Println("acknowledged", n)
	}
	os.Exit(0)
}

// TestFsyncErrorStopsTheProcess lets a child process meet a failing disk.
func TestFsyncErrorStopsTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fsyncChildEnv+"="+dir)
	var stderr strings.Builder
	child.Stderr = &stderr
	out, err := child.Output()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 {
		t.Fatalf("the child ended with %v, want status 1; it said\n%s", err, stderr.String())
	}
	if !strings.Contains(stderr.String(), "input/output error") {
		t.Errorf("the reason is not in the log:\n%s", stderr.String())
	}
	e := open(t, vfs.Default, dir)
	defer closeEngine(t, e)
	acknowledged := 0
	for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); acknowledged++ {
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &n); err != nil {
			t.Fatal(err)
		}
		if _, found, err := e.Get(nil, []byte("k"+strconv.Itoa(n))); err != nil || !found {
			t.Errorf("acknowledged batch %d is lost: %v", n, err)
		}
	}
	if acknowledged == 0 || acknowledged >= 1000 {
		t.Errorf("%d batches acknowledged, want some and not all", acknowledged)
	}
}
