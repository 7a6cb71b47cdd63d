package wasm

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/tenure-faas/tenure/base"
)

// Options are the settings of a Runtime. The zero value of each field means its default.
type Options struct {
	// CacheDir is a directory for compiled modules, created if needed: with it a module that was loaded before is ready
	// in about 50 ms instead of 1 to 2 s. It must be writable only by those who may run code in this process. Empty: no
	// cache.
	CacheDir string
	// MemoryLimit bounds the linear memory of one instance, in bytes, rounded down to 64 KiB. Default 64 MiB.
	MemoryLimit int64
	// MaxInstances bounds the instances of all bundles together, busy and idle. Default 256.
	MaxInstances int
	// MaxIdle bounds the idle instances of one bundle; more are discarded after their call. Default 16.
	MaxIdle int
	// RecycleAfter is the number of calls after which an instance is discarded, against guests that leak. Default 100,000.
	RecycleAfter int
	// StartTimeout bounds the start of an instance, during which guest code runs. Default 2 s.
	StartTimeout time.Duration
	// Slice is the fuel between two looks at the clock. Default 10,000, about 15 microseconds.
	Slice int64
}

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	if o.MemoryLimit == 0 {
		o.MemoryLimit = 64 << 20
	}
	if o.MaxInstances == 0 {
		o.MaxInstances = 256
	}
	if o.MaxIdle == 0 {
		o.MaxIdle = 16
	}
	if o.RecycleAfter == 0 {
		o.RecycleAfter = 100_000
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 2 * time.Second
	}
	if o.Slice == 0 {
		o.Slice = 10_000
	}
}

// Validate reports the first setting that makes no sense.
func (o *Options) Validate() error {
	switch {
	case o.MemoryLimit < pageBytes || o.MemoryLimit >= 4<<30:
		return fmt.Errorf("wasm options: memory limit %d is not at least 64 KiB and below 4 GiB", o.MemoryLimit)
	case o.MaxInstances < 1, o.MaxIdle < 1, o.RecycleAfter < 1, o.StartTimeout < 0, o.Slice < 1:
		return fmt.Errorf("wasm options: %+v has a negative setting", *o)
	}
	return nil
}

const (
	// pageBytes is the unit of linear memory.
	pageBytes = 64 << 10
	// maxBuilding bounds the instances that start at a time. A start costs a Go guest 5 to 9 ms of CPU, so a burst on a
	// cold bundle is better served by few instances many times than by many instances once.
	maxBuilding = 2
	// fullWait is how long a call waits for an instance of its bundle to come back when no more may be built. It is
	// fixed and short, because the calls that have the instances may be waiting for locks that this one holds.
	fullWait = 100 * time.Millisecond
)

// Runtime compiles modules and owns the engine and the number of instances. It is safe for concurrent use.
type Runtime struct {
	opt      Options
	engine   wazero.Runtime
	cache    wazero.CompilationCache // nil without CacheDir
	building chan struct{}           // a slot for each instance that is starting; capacity maxBuilding
	refills  sync.WaitGroup          // of goroutines that build spares
	started  time.Time               // zero of the guests' monotonic clock
	imports  map[importName]importedFunction

	// mu guards what follows. Lock order: mu before Bundle.mu.
	mu      sync.Mutex
	bundles map[*Bundle]struct{} // loaded and not freed
	live    int                  // instances that exist or are being built
	closed  bool
}

// New starts a runtime. The caller owns it and calls Close. ctx is used for the start only.
func New(ctx context.Context, opt Options) (*Runtime, error) {
	opt.EnsureDefaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	config := wazero.NewRuntimeConfig().
		WithCoreFeatures(api.CoreFeaturesV2).
		WithMemoryLimitPages(uint32(opt.MemoryLimit / pageBytes)).
		WithDebugInfoEnabled(false)
	r := &Runtime{
		opt:      opt,
		building: make(chan struct{}, maxBuilding),
		bundles:  map[*Bundle]struct{}{},
		started:  time.Now(),
	}
	if opt.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(opt.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open the cache of compiled modules in %q: %w", opt.CacheDir, err)
		}
		r.cache = cache
		config = config.WithCompilationCache(cache)
	}
	r.engine = wazero.NewRuntimeWithConfig(ctx, config)
	if err := r.provideImports(ctx); err != nil {
		return nil, fmt.Errorf("provide imports: %w", err)
	}
	return r, nil
}

// Close closes all bundles, waits for running calls until ctx ends, and frees the engine. When ctx ends first it returns
// ctx's error and frees nothing, as native code may still run.
func (r *Runtime) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	bundles := make([]*Bundle, 0, len(r.bundles))
	for b := range r.bundles {
		bundles = append(bundles, b)
	}
	r.mu.Unlock()
	for _, b := range bundles {
		b.close()
	}
	for _, b := range bundles {
		select {
		case <-b.freed:
		case <-ctx.Done():
			return fmt.Errorf("close wasm runtime: function %q still runs: %w", b.name, ctx.Err())
		}
	}
	r.refills.Wait()
	err := r.engine.Close(ctx)
	if r.cache != nil {
		err = firstError(err, r.cache.Close(ctx))
	}
	if err != nil {
		return fmt.Errorf("close wasm runtime: %w", err)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// reserve counts one more instance, and makes place for it by dropping an idle one of another bundle if it must.
func (r *Runtime) reserve(b *Bundle) bool {
	r.mu.Lock()
	if r.live < r.opt.MaxInstances {
		r.live++
		r.mu.Unlock()
		return true
	}
	var victim *instance
	for other := range r.bundles {
		if other == b {
			continue
		}
		if victim = other.takeOldest(); victim != nil {
			break
		}
	}
	r.mu.Unlock()
	if victim == nil {
		return false
	}
	victim.close()
	victim.bundle.forget()
	return true
}

// unreserve takes a reservation back.
func (r *Runtime) unreserve() {
	r.mu.Lock()
	r.live--
	r.mu.Unlock()
}

func full() error {
	return &base.Error{
		Kind:       base.Unavailable,
		Detail:     "all instances of functions are busy; raise MaxInstances or try later",
		RetryAfter: time.Second,
	}
}
