package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/store/remote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what has to happen at all; no test depends on its length.
const patience = 60 * time.Second

// witness is an engine that watches what is appended to it: every batch must be
// the next one of its member, and what the batch wrote must be of that number.
type witness struct {
	*pebble.Engine
	t testing.TB
	// stuck, while it is set, keeps WaitDurable from ever succeeding.
	stuck atomic.Bool

	// mu makes Append and Apply take turns, so that one sees what the other did.
	mu sync.Mutex
	// appends counts the batches accepted, refusals those refused; guarded by mu.
	appends, refusals int
}

type position struct {
	incarnation uint32
	number      base.Number
}

func (w *witness) read(worker int) position {
	incarnation, n, err := remote.ReadApplied(w.Engine, uint16(worker))
	if err != nil {
		w.t.Error(err)
	}
	return position{incarnation, n}
}

func (w *witness) Append(view base.View, b store.Batch) (base.Number, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var before [4]position
	for i := range before {
		before[i] = w.read(i)
	}
	n, err := w.Engine.Append(view, b)
	if err != nil {
		w.refusals++
		return n, err
	}
	w.appends++
	changed := 0
	for i := range before {
		after := w.read(i)
		if after == before[i] {
			continue
		}
		changed++
		if after.incarnation != before[i].incarnation || after.number != before[i].number+1 {
			w.t.Errorf("worker %d went from %v to %v", i, before[i], after)
		}
		if raw, found, _ := w.Get(nil, lastKey(i)); found && string(raw) != fmt.Sprint(after.number) {
			w.t.Errorf("batch %v of worker %d wrote as batch %s", after, i, raw)
		}
	}
	if changed != 1 {
		w.t.Errorf("a batch changed the records of %d workers", changed)
	}
	return n, nil
}

// Apply opens members' sessions among other things, which Append must not take
// for a batch.
func (w *witness) Apply(b store.Batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Engine.Apply(b)
}

func (w *witness) WaitDurable(ctx context.Context, n base.Number) error {
	if w.stuck.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return w.Engine.WaitDurable(ctx, n)
}

func (w *witness) accepted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.appends
}

// lastKey is written by every numbered batch of a worker with its number.
func lastKey(worker int) []byte { return fmt.Appendf(nil, "last/%d", worker) }

// keyOf is written by one batch.
func keyOf(worker int, n base.Number) []byte { return fmt.Appendf(nil, "b/%d/%06d", worker, n) }

// host is a store on loopback behind a proxy, so that its address stays while
// the server restarts and connections can be cut.
type host struct {
	t      testing.TB
	fs     *vfs.MemFS
	engine *witness
	opt    remote.ServerOptions
	proxy  *proxy
	server *grpc.Server
	wg     sync.WaitGroup
}

func startHost(t testing.TB, opt remote.ServerOptions) *host {
	t.Helper()
	h := &host{t: t, fs: vfs.NewCrashableMem(), opt: opt, proxy: newProxy(t)}
	t.Cleanup(func() { h.stop(); h.proxy.close() })
	h.start()
	return h
}

// start opens the engine on the host's file system and serves it.
func (h *host) start() {
	h.t.Helper()
	e, err := pebble.Open(pebble.Options{Dir: "db", FS: h.fs, CacheBytes: 1 << 20, MemTableBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.engine = &witness{Engine: e, t: h.t}
	l, err := rpc.Listen("127.0.0.1:0", rpc.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	s := rpc.NewServer(rpc.Options{MaxMessage: remote.MessageBytes})
	h.server = s
	remote.Register(s, h.engine, h.opt)
	h.wg.Go(func() {
		if err := s.Serve(l); err != nil {
			h.t.Error(err)
		}
	})
	h.proxy.to(l.Addr().String())
}

func (h *host) stop() {
	h.t.Helper()
	if h.server == nil {
		return
	}
	h.proxy.to("")
	h.server.Stop()
	h.wg.Wait()
	h.server = nil
	if err := h.engine.Close(); err != nil {
		h.t.Error(err)
	}
}

// crash ends the server as a power failure would: of what was not synced, the
// percentage survives.
func (h *host) crash(unsynced int) {
	h.t.Helper()
	h.proxy.to("")
	clone := h.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(rand.Uint64(), 0))})
	h.stop()
	h.fs = clone
}

func (h *host) dial(o remote.Options) *remote.Engine {
	h.t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e, err := remote.Dial(h.proxy.address, o)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

// member dials as worker w in incarnation i and closes at the end of the test.
func (h *host) member(w uint16, i uint32, o remote.Options) *remote.Engine {
	h.t.Helper()
	o.Member = remote.Member{Worker: w, Incarnation: i}
	e := h.dial(o)
	h.t.Cleanup(func() { closeEngine(h.t, e) })
	return e
}

func closeEngine(t testing.TB, e store.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// proxy forwards TCP connections.
type proxy struct {
	t       testing.TB
	address string
	l       net.Listener
	wg      sync.WaitGroup

	mu     sync.Mutex
	target string
	conns  map[net.Conn]bool
	// budget, if positive, is how many bytes pass before everything is cut.
	budget int
	cuts   int
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, l: l, address: l.Addr().String(), conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.forward(in)
		}
	})
	return p
}

func (p *proxy) forward(in net.Conn) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	var out net.Conn
	err := errors.New("nowhere to go")
	if target != "" {
		out, err = net.Dial("tcp", target)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || p.target != target {
		_ = in.Close()
		if out != nil {
			_ = out.Close()
		}
		return
	}
	p.conns[in], p.conns[out] = true, true
	p.wg.Go(func() { p.pump(in, out) })
	p.wg.Go(func() { p.pump(out, in) })
}

func (p *proxy) pump(from, to net.Conn) {
	buf := make([]byte, 512)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			n = p.spend(n)
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range []net.Conn{from, to} {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// spend lets n bytes pass, or fewer and cuts everything.
func (p *proxy) spend(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.budget == 0 {
		return n
	}
	if n < p.budget {
		p.budget -= n
		return n
	}
	n, p.budget = p.budget-1, 0
	p.cuts++
	p.cutLocked()
	return n
}

func (p *proxy) cutLocked() {
	for c := range p.conns {
		_ = c.Close()
	}
}

// cutAfter cuts all connections when n more bytes have passed.
func (p *proxy) cutAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget = n
}

// armed reports whether a cut is still to come.
func (p *proxy) armed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.budget > 0
}

// to cuts all connections and sends new ones to another server; "" refuses them.
func (p *proxy) to(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	p.cutLocked()
}

func (p *proxy) close() {
	if err := p.l.Close(); err != nil && !errors.Is(err, io.EOF) {
		p.t.Error(err)
	}
	p.to("")
	p.wg.Wait()
}

// appendNumbered appends a batch that writes its number, as the witness and
// check expect it. It must not be called concurrently for a member.
func appendNumbered(t testing.TB, e *remote.Engine, worker int, view base.View, size int) base.Number {
	t.Helper()
	b := e.NewBatch()
	defer b.Release()
	n := e.Appended() + 1
	b.Set(lastKey(worker), fmt.Append(nil, n))
	b.Set(keyOf(worker, n), make([]byte, size))
	got, err := e.Append(view, b)
	if err != nil || got != n {
		t.Fatalf("batch %d of worker %d: number %d, %v", n, worker, got, err)
	}
	return n
}

func waitDurable(t testing.TB, e store.Engine, n base.Number) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.WaitDurable(ctx, n); err != nil || e.Durable() < n {
		t.Fatalf("batch %d: %v, durable %d", n, err, e.Durable())
	}
}

// until waits for a condition that other goroutines bring about.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); {
		if time.Now().After(end) {
			t.Fatalf("in %v it did not come true that %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

func has(t testing.TB, r store.Reader, key []byte) bool {
	t.Helper()
	_, found, err := r.Get(nil, key)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// unavailable checks the kind of an error and what it says of the outcome.
func unavailable(t testing.TB, err error, unknown bool) {
	t.Helper()
	e, ok := errors.AsType[*base.Error](err)
	if !ok || e.Kind != base.Unavailable || e.Unknown != unknown {
		t.Errorf("got %v (%#v), want unavailable with unknown %t", err, err, unknown)
	}
}
