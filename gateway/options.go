package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/tenure-faas/tenure/base"
)

// Options configures a Gateway. The zero value of each field means its
// default, which EnsureDefaults fills in.
type Options struct {
	// Token is the bearer token that allows everything. Empty: no
	// authentication at all, which suits a loopback address only.
	Token string `json:"-"`
	// ReadToken allows GET and HEAD only. Empty: there is no such token.
	ReadToken string `json:"-"`

	// MaxKeyBytes bounds a key; default and most base.MaxKeyBytes (1 KiB).
	MaxKeyBytes int
	// MaxValueBytes bounds one value; default 1 MiB.
	MaxValueBytes int
	// MaxBodyBytes bounds the body of every call except function deployment
	// and bulk load; default 6 MiB.
	MaxBodyBytes int
	// MaxModuleBytes bounds a wasm module; default 64 MiB.
	MaxModuleBytes int
	// MaxOps bounds the operations of one transaction; default 1024.
	MaxOps int
	// MaxInFlight bounds the invocations and bulk loads that run at the same
	// time; one more is answered 429. Default 4096.
	MaxInFlight int
	// LoadLines and LoadBytes bound one transaction of a bulk load; defaults
	// 512 lines and 256 KiB of keys and values. A larger single value is a
	// transaction of its own.
	LoadLines, LoadBytes int

	// Timeout is the deadline of invocations that neither the request nor the
	// workflow gives one; default 30 s.
	Timeout time.Duration
	// MaxTimeout bounds Tenure-Timeout; default 10 min.
	MaxTimeout time.Duration
	// RetryAfter is what Retry-After says when the cause does not say it
	// better; whole seconds, default 1 s.
	RetryAfter time.Duration
	// Retention is how long the worker keeps records, for messages only;
	// default 24 h.
	Retention time.Duration

	// ReadHeaderTimeout bounds the time to send a request's header; default 10 s.
	ReadHeaderTimeout time.Duration
	// ReadTimeout bounds the time to send a whole request. A bulk load gets
	// it anew for each of its transactions. Default 5 min.
	ReadTimeout time.Duration
	// WriteTimeout bounds the time from the end of a request's header to the
	// end of the response; default 15 min, at least MaxTimeout.
	WriteTimeout time.Duration
	// IdleTimeout bounds how long a connection waits for its next request;
	// default 2 min.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's header; default 64 KiB, which holds
	// a fully percent-encoded key of MaxKeyBytes many times over.
	MaxHeaderBytes int

	// Version is the software version shown in /openapi.json; default "dev".
	Version string
	// Logger gets internal faults and panics; default slog.Default.
	Logger *slog.Logger `json:"-"`
}

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	setDefault(&o.MaxKeyBytes, base.MaxKeyBytes)
	setDefault(&o.MaxValueBytes, base.MaxValueBytes)
	setDefault(&o.MaxBodyBytes, 6<<20)
	setDefault(&o.MaxModuleBytes, 64<<20)
	setDefault(&o.MaxOps, 1024)
	setDefault(&o.MaxInFlight, 4096)
	setDefault(&o.LoadLines, 512)
	setDefault(&o.LoadBytes, 256<<10)
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.MaxTimeout, 10*time.Minute)
	setDefault(&o.RetryAfter, time.Second)
	setDefault(&o.Retention, 24*time.Hour)
	setDefault(&o.ReadHeaderTimeout, 10*time.Second)
	setDefault(&o.ReadTimeout, 5*time.Minute)
	setDefault(&o.WriteTimeout, 15*time.Minute)
	setDefault(&o.IdleTimeout, 2*time.Minute)
	setDefault(&o.MaxHeaderBytes, 64<<10)
	setDefault(&o.Version, "dev")
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Validate reports every fault of options whose defaults are filled in.
func (o *Options) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("gateway options: "+format, args...))
		}
	}
	for _, limit := range []struct {
		name  string
		value int
	}{
		{"MaxKeyBytes", o.MaxKeyBytes}, {"MaxValueBytes", o.MaxValueBytes}, {"MaxBodyBytes", o.MaxBodyBytes},
		{"MaxModuleBytes", o.MaxModuleBytes}, {"MaxOps", o.MaxOps}, {"MaxInFlight", o.MaxInFlight},
		{"LoadLines", o.LoadLines}, {"LoadBytes", o.LoadBytes}, {"MaxHeaderBytes", o.MaxHeaderBytes},
	} {
		fault(limit.value < 1, "%s is %d, it must be positive", limit.name, limit.value)
	}
	for _, limit := range []struct {
		name  string
		value time.Duration
	}{
		{"Timeout", o.Timeout}, {"MaxTimeout", o.MaxTimeout}, {"RetryAfter", o.RetryAfter}, {"Retention", o.Retention},
		{"ReadHeaderTimeout", o.ReadHeaderTimeout}, {"ReadTimeout", o.ReadTimeout},
		{"WriteTimeout", o.WriteTimeout}, {"IdleTimeout", o.IdleTimeout},
	} {
		fault(limit.value <= 0, "%s is %v, it must be positive", limit.name, limit.value)
	}
	fault(o.MaxKeyBytes > base.MaxKeyBytes, "MaxKeyBytes is %d, the key format allows %d", o.MaxKeyBytes, base.MaxKeyBytes)
	fault(o.Timeout > o.MaxTimeout, "Timeout %v is longer than MaxTimeout %v", o.Timeout, o.MaxTimeout)
	fault(o.WriteTimeout < o.MaxTimeout, "WriteTimeout %v would cut off invocations that may take MaxTimeout %v", o.WriteTimeout, o.MaxTimeout)
	fault(o.ReadToken != "" && o.Token == "", "ReadToken is set and Token is not: nobody could write")
	fault(o.ReadToken != "" && o.ReadToken == o.Token, "ReadToken equals Token: it would allow writes")
	return errors.Join(errs...)
}

// String describes the options without the tokens.
func (o Options) String() string {
	return fmt.Sprintf("auth=%t read-auth=%t max-key=%d max-value=%d max-body=%d max-module=%d max-ops=%d max-in-flight=%d "+
		"load=%d/%d timeout=%v max-timeout=%v retention=%v read-header=%v read=%v write=%v idle=%v max-header=%d version=%s",
		o.Token != "", o.ReadToken != "", o.MaxKeyBytes, o.MaxValueBytes, o.MaxBodyBytes, o.MaxModuleBytes, o.MaxOps, o.MaxInFlight,
		o.LoadLines, o.LoadBytes, o.Timeout, o.MaxTimeout, o.Retention, o.ReadHeaderTimeout, o.ReadTimeout, o.WriteTimeout,
		o.IdleTimeout, o.MaxHeaderBytes, o.Version)
}

// NewHTTPServer returns a server with the time-outs and limits of opt. The
// benchmark's bare server uses it too, so that the two differ in the handler
// only. The caller sets no address: it calls Serve with a listener.
func NewHTTPServer(opt Options, handler http.Handler) *http.Server {
	opt.EnsureDefaults()
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: opt.ReadHeaderTimeout,
		ReadTimeout:       opt.ReadTimeout,
		WriteTimeout:      opt.WriteTimeout,
		IdleTimeout:       opt.IdleTimeout,
		MaxHeaderBytes:    opt.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(opt.Logger.Handler(), slog.LevelWarn),
		// The handler answers OPTIONS * itself, so that every answer that a
		// handler can give has one form.
		DisableGeneralOptionsHandler: true,
	}
}

// setDefault replaces a zero value by its default.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
