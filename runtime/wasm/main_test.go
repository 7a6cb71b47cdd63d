package wasm

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

var soakCalls = flag.Int("soak.calls", 20_000, "calls of each handler in TestSoak; make soak uses 1,000,000")

// guest is the module that most tests share, loaded into a runtime that they share too.
type guest struct {
	dir    string
	module []byte
	bundle *Bundle
}

// loadGuest builds and loads it once, and only for tests that want it: the processes that fuzz do not.
var loadGuest = sync.OnceValues(func() (*guest, error) {
	dir, err := os.MkdirTemp("", "tenure-wasm")
	if err != nil {
		return nil, err
	}
	g := &guest{dir: dir}
	if err := noteSources("testdata/guest", "../../sdk/go", "../../examples/bank"); err != nil {
		return g, err
	}
	if g.module, err = buildGuest(dir, "./testdata/guest"); err != nil {
		return g, err
	}
	r, err := New(context.Background(), Options{CacheDir: filepath.Join(dir, "cache")})
	if err != nil {
		return g, err
	}
	bundle, err := r.Load(context.Background(), "guest", g.module, false)
	if err != nil {
		return g, err
	}
	g.bundle = bundle.(*Bundle)
	loaded.Store(g)
	return g, nil
})

// loaded is what loadGuest made, for TestMain to take away.
var loaded atomic.Pointer[guest]

func TestMain(m *testing.M) {
	code := m.Run()
	if err := cleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func cleanUp() error {
	if g := loaded.Load(); g != nil {
		if err := g.bundle.runtime.Close(context.Background()); err != nil {
			return err
		}
		if err := os.RemoveAll(g.dir); err != nil {
			return err
		}
	}
	return goleak.Find()
}

// shared returns the bundle that tests share.
func shared(t testing.TB) *Bundle { return sharedGuest(t).bundle }

func sharedGuest(t testing.TB) *guest {
	t.Helper()
	g, err := loadGuest()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// noteSources opens the sources of guests, so that go test does not answer from its cache after they changed: the
// compiler reads them in another process.
func noteSources(dirs ...string) error {
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if _, err := os.ReadFile(file); err != nil {
				return err
			}
		}
	}
	return nil
}

// buildGuest compiles a package of guest code as an author would.
func buildGuest(dir, pkg string) ([]byte, error) {
	file := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return os.ReadFile(file)
}

// load loads the guest into a runtime of the test's own.
func load(t testing.TB, opt Options, isolate bool) *Bundle {
	t.Helper()
	g := sharedGuest(t)
	opt.CacheDir = g.bundle.runtime.opt.CacheDir
	r, err := New(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	b, err := r.Load(t.Context(), "guest", g.module, isolate)
	if err != nil {
		t.Fatal(err)
	}
	return b.(*Bundle)
}

// invoke calls a handler with a new Host and a generous deadline.
func invoke(t testing.TB, b *Bundle, handler, input string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := b.Invoke(ctx, runtime.Call{Handler: handler, Input: []byte(input), Host: &fakeHost{}})
	return string(out), err
}

// fakeHost is a transaction on a map.
type fakeHost struct {
	mu      sync.Mutex
	values  map[base.Key]string
	reason  string
	logs    []string
	over    bool // every call answers ErrAttemptOver
	panicky bool // Get panics
}

func (h *fakeHost) check(table, key string) error {
	if h.over {
		return runtime.ErrAttemptOver
	}
	return base.Key{Table: table, Key: key}.Validate()
}

func (h *fakeHost) Get(table, key string) ([]byte, bool, error) {
	if h.panicky {
		panic("assertion")
	}
	if err := h.check(table, key); err != nil {
		return nil, false, err
	}
	v, ok := h.values[base.Key{Table: table, Key: key}]
	return []byte(v), ok, nil
}

func (h *fakeHost) Put(table, key string, value []byte) error {
	if err := h.check(table, key); err != nil {
		return err
	}
	if h.values == nil {
		h.values = map[base.Key]string{}
	}
	h.values[base.Key{Table: table, Key: key}] = string(value)
	return nil
}

func (h *fakeHost) Delete(table, key string) error {
	delete(h.values, base.Key{Table: table, Key: key})
	return h.check(table, key)
}

func (h *fakeHost) Add(table, key string, delta int64) error {
	if err := h.check(table, key); err != nil {
		return err
	}
	n, _ := strconv.ParseInt(h.values[base.Key{Table: table, Key: key}], 10, 64)
	return h.Put(table, key, strconv.AppendInt(nil, n+delta, 10))
}

func (h *fakeHost) Scan(table, prefix string, limit int) ([]runtime.Entry, error) {
	var entries []runtime.Entry
	for _, k := range slices.SortedFunc(maps.Keys(h.values), func(a, b base.Key) int { return strings.Compare(a.Key, b.Key) }) {
		if k.Table == table && strings.HasPrefix(k.Key, prefix) && (limit == 0 || len(entries) < limit) {
			entries = append(entries, runtime.Entry{Key: k.Key, Value: []byte(h.values[k])})
		}
	}
	return entries, h.check(table, prefix+"x")
}

func (h *fakeHost) Call(function, handler string, input []byte) ([]byte, error) {
	if h.over {
		return nil, runtime.ErrAttemptOver
	}
	return []byte(fmt.Sprintf("[%q,%q,%s]", function, handler, input)), nil
}

func (h *fakeHost) Result(step string) ([]byte, bool) { return []byte(`{"a":1}`), step == "before" }
func (h *fakeHost) Abort(reason string)               { h.reason = reason }
func (h *fakeHost) Now() time.Time                    { return time.Date(2025, 2, 3, 4, 5, 6, 7, time.UTC) }
func (h *fakeHost) Rand() uint64                      { return 1<<63 + 5 }

func (h *fakeHost) Log(message string) {
	h.mu.Lock()
	h.logs = append(h.logs, message)
	h.mu.Unlock()
}

func (h *fakeHost) InvocationID() base.InvocationID { return base.InvocationID{15: 1} }
