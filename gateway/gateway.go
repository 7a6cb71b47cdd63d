package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

// Gateway serves the HTTP API. It has three states: starting (from New),
// serving (from Serve) and draining (from Drain), and never goes back.
// Invocations are refused with 503 in all but the second. It starts no
// goroutine; all methods are safe for concurrent use.
type Gateway struct {
	opt       Options
	executor  Executor
	catalogue Catalogue
	router    router
	// openAPI is made when it is first asked for: it takes as long as all the rest.
	openAPI func() ([]byte, error)
	page    uiPage
	metrics *metrics
	// crossOrigin refuses writes that a web page of another origin sends with
	// the help of a browser: a gateway without tokens trusts its network, not
	// the pages that its users look at.
	crossOrigin *http.CrossOriginProtection
	// tokenHash and readHash are the hashes of the tokens: comparing hashes
	// takes the same time for every guess, whatever its length.
	tokenHash, readHash [sha256.Size]byte

	// state is a gatewayState; it only grows.
	state atomic.Int32
	// inFlight counts invocations and bulk loads. It is raised before state
	// is read, and Drain reads it after state is written, so that one of the
	// two sees the other.
	inFlight atomic.Int64
	// draining is closed by the first Drain: log followers leave.
	draining  chan struct{}
	drainOnce sync.Once
	// idle is closed when draining and the last invocation has ended.
	idle     chan struct{}
	idleOnce sync.Once

	buffers bufferPool
	// lookup is catalogue.Bundle, as a value made once.
	lookup func(function string) (runtime.Bundle, error)
}

type gatewayState int32

const (
	stateStarting gatewayState = iota
	stateServing
	stateDraining
)

// New returns a gateway in the state starting. opt's zero fields get their
// defaults; the error says all that is wrong with the others. The metrics are
// registered with registry, which /metrics shows; a metric of the same name
// there is an error.
func New(opt Options, executor Executor, catalogue Catalogue, registry *prometheus.Registry) (*Gateway, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{
		opt: opt, executor: executor, catalogue: catalogue,
		crossOrigin: http.NewCrossOriginProtection(),
		tokenHash:   sha256.Sum256([]byte(opt.Token)),
		readHash:    sha256.Sum256([]byte(opt.ReadToken)),
		draining:    make(chan struct{}),
		idle:        make(chan struct{}),
		page:        newUIPage(),
		lookup:      catalogue.Bundle,
	}
	var err error
	if g.metrics, err = newMetrics(registry, executor); err != nil {
		return nil, err
	}
	endpoints := g.endpoints()
	for i := range endpoints {
		g.router.add(&endpoints[i])
	}
	g.openAPI = sync.OnceValues(func() ([]byte, error) { return openAPI(opt.Version, endpoints) })
	return g, nil
}

// Handler returns the handler of the whole API.
func (g *Gateway) Handler() http.Handler { return g }

// Serve says that the executor is ready: /readyz turns 200 and invocations
// are accepted. It does nothing after Drain.
func (g *Gateway) Serve() {
	g.state.CompareAndSwap(int32(stateStarting), int32(stateServing))
}

// Drain refuses new invocations with 503, turns /readyz to 503, ends log
// followers, and waits until running invocations and bulk loads have ended or
// ctx is done, whose error it then returns. Reads of the catalogue, records
// and metrics are still served. Call it before http.Server.Shutdown; it may be
// called more than once.
func (g *Gateway) Drain(ctx context.Context) error {
	g.state.Store(int32(stateDraining))
	g.drainOnce.Do(func() { close(g.draining) })
	if g.inFlight.Load() == 0 {
		g.idleOnce.Do(func() { close(g.idle) })
	}
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter admits one invocation or bulk load; after a nil error the caller
// calls leave.
func (g *Gateway) enter() error {
	running := g.inFlight.Add(1)
	err := g.refusal()
	if err == nil && running > int64(g.opt.MaxInFlight) {
		err = base.Errorf(base.Overloaded, "%d invocations are running, the limit of this gateway; nothing was started", g.opt.MaxInFlight)
	}
	if err != nil {
		g.leave()
		return err
	}
	return nil
}

// leave ends what enter admitted.
func (g *Gateway) leave() {
	if g.inFlight.Add(-1) == 0 && gatewayState(g.state.Load()) == stateDraining {
		g.idleOnce.Do(func() { close(g.idle) })
	}
}

// refusal says why invocations are not accepted now; nil: they are.
func (g *Gateway) refusal() error {
	switch gatewayState(g.state.Load()) {
	case stateStarting:
		return base.Errorf(base.Unavailable, "the server is starting; nothing was changed")
	case stateDraining:
		return base.Errorf(base.Unavailable, "the server is shutting down; nothing was changed")
	case stateServing:
	}
	return nil
}

// call is one request on its way through the gateway. It is used by one
// goroutine and not after ServeHTTP returns.
type call struct {
	w http.ResponseWriter
	r *http.Request
	// params are the decoded parameters of the path, in its order.
	params [maxParams]string
	// id and invocation are the id, and its text, of the invocation that the
	// request asks for; zero for calls that ask for none.
	id         base.InvocationID
	invocation string
	// started says that the header of the response is written.
	started bool
	// values holds the values of the headers that most answers have, so that
	// each need not be a slice of its own; used is how many it holds.
	values [6]string
	used   int
	// unread says that the client may still be sending a body that nobody
	// will read.
	unread bool
}

// ServeHTTP answers one request: it finds the endpoint, checks the
// credentials, runs the handler and turns its error or panic into a problem.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{w: w, r: r}
	defer func() {
		if fault := recover(); fault != nil {
			g.recovered(c, fault)
		}
	}()
	c.header("X-Content-Type-Options", "nosniff")
	if err := g.serve(c); err != nil {
		g.writeError(c, err)
	}
}

// serve does the work of ServeHTTP up to the error.
func (g *Gateway) serve(c *call) error {
	n, err := g.router.find(c.r.URL.EscapedPath(), &c.params)
	var e *endpoint
	if n != nil {
		method := c.r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if e = n.endpoints[method]; e != nil && e.invocation {
			c.name()
		}
	}
	// Who may not use the API is not told which paths it has.
	if e == nil || !e.open {
		if err := g.authenticate(c.r); err != nil {
			return err
		}
	}
	switch {
	case err != nil:
		return err
	case e == nil:
		c.w.Header().Set("Allow", n.allow())
		return base.Errorf(base.MethodNotAllowed, "the method %s is not defined here; there are: %s", c.r.Method, n.allow())
	}
	if err := g.crossOrigin.Check(c.r); err != nil {
		return base.Errorf(base.Forbidden, "a page of another origin may not call this: %v", err)
	}
	return e.handle(c)
}

// authenticate checks the bearer token. Without a configured token everything
// is allowed.
func (g *Gateway) authenticate(r *http.Request) error {
	if g.opt.Token == "" {
		return nil
	}
	const scheme = "Bearer "
	header := r.Header.Get("Authorization")
	if len(header) <= len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return base.Errorf(base.Unauthorized, "send the header Authorization: Bearer with a token")
	}
	hash := sha256.Sum256([]byte(header[len(scheme):]))
	full := subtle.ConstantTimeCompare(hash[:], g.tokenHash[:]) == 1
	read := subtle.ConstantTimeCompare(hash[:], g.readHash[:]) == 1 && g.opt.ReadToken != ""
	switch {
	case full:
		return nil
	case !read:
		return base.Errorf(base.Unauthorized, "the token is not valid here")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return base.Errorf(base.Forbidden, "this token allows reading only")
	}
	return nil
}

// recovered logs a panic and answers 500, or cuts the connection when an
// answer has begun: half an answer must not look like a whole one.
func (g *Gateway) recovered(c *call, fault any) {
	err, _ := fault.(error)
	if errors.Is(err, http.ErrAbortHandler) {
		panic(fault)
	}
	g.opt.Logger.Error("panic in a handler", "method", c.r.Method, "path", c.r.URL.Path, "invocation", c.invocation,
		"panic", fault, "stack", string(bytes.TrimSpace(debug.Stack())))
	if c.started {
		panic(http.ErrAbortHandler)
	}
	g.writeError(c, base.Errorf(base.Internal, "panic"))
}
