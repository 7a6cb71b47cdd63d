// Package front is a reverse proxy in front of one worker: tokens, sizes and the
// number of requests in flight are checked at the door, so that the worker sees
// only what it may and can answer.
//
// The worker's answers pass through as they are: API, status, headers, streams.
// Its own refusals are in the worker's form, RFC 9457 problems. /healthz speaks
// for this process alone; /readyz says whether the worker is ready.
//
// Invariants: a request that could have a second effect is not sent a second
// time. If its connection breaks it may have been carried out, and the answer is
// 504 with an unknown outcome; 503 stands for a connection that could not be
// opened at all.
//
// Start reading at Door.ServeHTTP.
package front

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
)

const (
	// dialTimeout bounds a connection to the worker.
	dialTimeout = 3 * time.Second
	// drainTimeout bounds how long requests may take to end at a stop.
	drainTimeout = 30 * time.Second
	// idleConnections are kept open to the worker.
	idleConnections = 512
)

// Options configures a Door.
type Options struct {
	// Worker is the base URL of the worker. Required.
	Worker string
	// Token allows everything; empty: no authentication here.
	Token string
	// ReadToken allows GET and HEAD only; empty: there is no such token.
	ReadToken string
	// WorkerToken is sent to the worker instead of the client's Authorization;
	// empty: the client's is passed on.
	WorkerToken string
	// MaxInFlight bounds the requests at the same time, health checks excepted;
	// 0 means 4096.
	MaxInFlight int
	// MaxBodyBytes bounds the body of a request, bulk loads excepted; 0 means
	// 64 MiB.
	MaxBodyBytes int64
	// Logger gets what goes wrong between here and the worker; nil means
	// slog.Default.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero fields by their defaults.
func (o *Options) EnsureDefaults() {
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 4096
	}
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Validate reports every fault of options whose defaults are filled in.
func (o *Options) Validate() error {
	var errs []error
	if u, err := url.Parse(o.Worker); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		errs = append(errs, fmt.Errorf("the worker's URL %q must be like http://127.0.0.1:8089", o.Worker))
	}
	if o.MaxInFlight < 1 {
		errs = append(errs, fmt.Errorf("the bound of requests in flight is %d, it must be positive", o.MaxInFlight))
	}
	if o.MaxBodyBytes < 1 {
		errs = append(errs, fmt.Errorf("the bound of a body is %d, it must be positive", o.MaxBodyBytes))
	}
	if o.ReadToken != "" && o.Token == "" {
		errs = append(errs, errors.New("there is a token for reading and none for writing: nobody could write"))
	}
	return errors.Join(errs...)
}

// Door is the proxy. It is safe for concurrent use and starts no goroutine
// before Serve.
type Door struct {
	opt   Options
	proxy *httputil.ReverseProxy
	// places has a token for each request in flight. Capacity:
	// Options.MaxInFlight.
	places chan struct{}
	// tokenHash and readHash: comparing hashes takes the same time for every
	// guess.
	tokenHash, readHash [sha256.Size]byte
}

// New returns a door; it does not connect. The error says all that is wrong with
// the options.
func New(opt Options) (*Door, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	worker, err := url.Parse(opt.Worker)
	if err != nil {
		return nil, err
	}
	d := &Door{
		opt: opt, places: make(chan struct{}, opt.MaxInFlight),
		tokenHash: sha256.Sum256([]byte(opt.Token)), readHash: sha256.Sum256([]byte(opt.ReadToken)),
	}
	d.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(worker)
			// The worker compares Origin with Host: it must see the client's.
			r.Out.Host = r.In.Host
			r.SetXForwarded()
			if opt.WorkerToken != "" {
				r.Out.Header.Set("Authorization", "Bearer "+opt.WorkerToken)
			}
		},
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConnsPerHost: idleConnections,
			// Sooner than the worker closes them, so that no request meets a
			// connection that is going away.
			IdleConnTimeout: time.Minute,
			// The client chooses the encoding.
			DisableCompression: true,
		},
		// Log followers see a line when it is written.
		FlushInterval: -1,
		ErrorHandler:  d.failed,
		ErrorLog:      slog.NewLogLogger(opt.Logger.Handler(), slog.LevelWarn),
	}
	return d, nil
}

// ServeHTTP checks a request and passes it on.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		answer(w, http.StatusOK, "application/json", []byte(`{"status":"ok"}`))
		return
	case "/readyz":
		d.proxy.ServeHTTP(w, r)
		return
	}
	if err := d.authenticate(r); err != nil {
		refuse(w, err)
		return
	}
	select {
	case d.places <- struct{}{}:
		defer func() { <-d.places }()
	default:
		refuse(w, base.Errorf(base.Overloaded, "%d requests are in flight, the limit of this gateway; nothing was started", d.opt.MaxInFlight))
		return
	}
	switch {
	case stream(r):
		// How long these take is between the client and the worker, which sets
		// a deadline for each part. Writers without deadlines have none to lift.
		rc := http.NewResponseController(w)
		_, _ = rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})
	default:
		if r.ContentLength > d.opt.MaxBodyBytes {
			refuse(w, tooLarge(d.opt.MaxBodyBytes))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, d.opt.MaxBodyBytes)
	}
	d.proxy.ServeHTTP(w, r)
}

// stream says whether a request is of no bounded length: a bulk load, or
// following the log.
func stream(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Path == "/v1/state" || follows(r)
}

func follows(r *http.Request) bool { return r.URL.Path == "/v1/logs" }

func tooLarge(limit int64) *base.Error {
	return base.Errorf(base.TooLarge, "the body is larger than %d bytes, the limit of this gateway", limit)
}

// open says whether a path is for everybody, as at the worker.
func open(p string) bool {
	return p == "/metrics" || p == "/openapi.json" || p == "/ui" || p == "/ui/"
}

// authenticate checks the bearer token as the worker does.
func (d *Door) authenticate(r *http.Request) *base.Error {
	if d.opt.Token == "" || open(r.URL.Path) {
		return nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return base.Errorf(base.Unauthorized, "send the header Authorization: Bearer with a token")
	}
	hash := sha256.Sum256([]byte(token))
	full := subtle.ConstantTimeCompare(hash[:], d.tokenHash[:]) == 1
	read := subtle.ConstantTimeCompare(hash[:], d.readHash[:]) == 1 && d.opt.ReadToken != ""
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

// failed answers a request that the worker did not.
func (d *Door) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // The client has left.
	}
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		refuse(w, tooLarge(large.Limit))
		return
	}
	d.opt.Logger.Warn("no answer from the worker", "method", r.Method, "path", r.URL.Path, "err", err)
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		refuse(w, base.Errorf(base.Unavailable, "the worker cannot be reached; nothing was changed"))
		return
	}
	refuse(w, &base.Error{Kind: base.Timeout, Unknown: true, Detail: "the connection to the worker broke; the outcome is unknown: ask again with the same Idempotency-Key"})
}

// Serve listens on address, calls ready with its URL, and serves until ctx ends
// and the requests under way have ended, 30 s later at most. Those who follow the
// log are cut off at once.
func (d *Door) Serve(ctx context.Context, address string, ready func(url string)) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	server := gateway.NewHTTPServer(gateway.Options{Logger: d.opt.Logger}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if follows(r) {
			// A follower would hold up the stop.
			following, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			r = r.WithContext(following)
		}
		d.ServeHTTP(w, r)
	}))
	stopped := make(chan error, 1) // one send, by the function below
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		stopped <- errors.Join(server.Shutdown(ctx), server.Close())
	})
	ready("http://" + listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return <-stopped
}
