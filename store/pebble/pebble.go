// Package pebble is the embedded store.Engine, on CockroachDB's Pebble.
//
// Group commit without a goroutine of its own (commit.go): Append hands a batch
// to Pebble without waiting, so it is in the log buffer and in the memtable.
// Whoever waits for durability first takes the leader's token, notes how far the
// log has been appended, syncs the log once, and wakes everybody whose batch was
// covered; those who came during the sync find the token free afterwards. One
// sync is in flight at a time and its cost is shared by all that queued up
// behind the last one. The simpler way, one synced commit a transaction, wakes
// each committer by itself and gives no number to wait for, which read-only
// transactions need.
//
// A failed write or sync of the log, and every other fault that Pebble calls
// fatal, ends the process (Options.OnFatal): after a failed fsync nobody knows
// what the disk holds (see "fsyncgate", 2018), so no later answer could be
// honest. A restart reads what is really there.
package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store"
)

// Options configures an Engine.
type Options struct {
	// Dir is the data directory; it is created if absent. Required.
	Dir string
	// FS is the file system; nil means the operating system's.
	FS vfs.FS
	// CacheBytes bounds the block cache; 0 means 256 MiB.
	CacheBytes int64
	// MemTableBytes is the size of a memtable; 0 means 64 MiB. Up to four are
	// held in memory before writers wait for the disk.
	MemTableBytes uint64
	// Logger gets the engine's own messages; nil means slog.Default.
	Logger *slog.Logger
	// OnFatal is called when the store can no longer be trusted; it must not
	// return. nil means: log the message and exit with status 1.
	OnFatal func(message string)
}

// EnsureDefaults replaces zero fields by their defaults.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 256 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OnFatal == nil {
		logger := o.Logger
		o.OnFatal = func(message string) {
			logger.Error("the store failed; stopping rather than answering wrongly", "err", message)
			os.Exit(1)
		}
	}
}

// Engine implements store.Engine.
type Engine struct {
	db *pebble.DB
	// sealMu guards seal: Append holds it shared from its check to its place in
	// the log, so that no batch of an older view lands behind a seal.
	sealMu sync.RWMutex
	seal   base.View

	// appended is the last number that Append has drawn, durable the last number
	// that is known to be on disk; durable <= appended.
	appended atomic.Uint64
	durable  atomic.Uint64
	// token is held by the goroutine that syncs. Capacity 1: the token.
	token chan struct{}
	// group is what waiters of the next sync wait on; replaced by the leader
	// before it reads appended.
	group atomic.Pointer[group]
	// syncs counts the syncs of the log.
	syncs atomic.Uint64
	// sizes are those of the last two groups, took is how long the last sync was;
	// guarded by the token.
	sizes [2]int32
	took  time.Duration
}

var _ store.Engine = (*Engine)(nil)

// Open opens or creates the store in opt.Dir. Only one process may hold it; a
// second one gets an error that says so.
func Open(opt Options) (*Engine, error) {
	opt.EnsureDefaults()
	cache := pebble.NewCache(opt.CacheBytes)
	defer cache.Unref()
	po := &pebble.Options{
		FS:                          opt.FS,
		Cache:                       cache,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                opt.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		Logger:                      fatalLogger{opt.Logger, opt.OnFatal},
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(opt.Dir, po)
	if err != nil {
		return nil, fmt.Errorf("open the store in %s (is another process using it?): %w", opt.Dir, err)
	}
	e := &Engine{db: db, token: make(chan struct{}, 1)}
	e.token <- struct{}{}
	e.group.Store(newGroup())
	raw, found, err := e.Get(nil, sealKey)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if found && len(raw) == 4 {
		e.seal = base.View(binary.BigEndian.Uint32(raw))
	}
	return e, nil
}

var sealKey = store.MetaKey("seal")

// Get implements store.Reader.
func (e *Engine) Get(dst, key []byte) ([]byte, bool, error) {
	v, closer, err := e.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, fmt.Errorf("read %q from the store: %w", key, err)
	}
	dst = append(dst, v...)
	return dst, true, closer.Close()
}

// Scan implements store.Reader.
func (e *Engine) Scan(lo, hi []byte, visit func(key, value []byte) bool) (err error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return fmt.Errorf("scan the store from %q: %w", lo, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if !visit(it.Key(), it.Value()) {
			break
		}
	}
	return it.Error()
}

// NewBatch implements store.Engine.
func (e *Engine) NewBatch() store.Batch { return &batch{b: e.db.NewBatch()} }

// Append implements store.Engine. The number is drawn after the batch has its
// place in the log, so that a sync of the log which begins when the number is
// known covers the batch; batches that do not depend on each other may be
// appended side by side and stand in the log in another order than their
// numbers.
func (e *Engine) Append(view base.View, b store.Batch) (base.Number, error) {
	e.sealMu.RLock()
	defer e.sealMu.RUnlock()
	if view < e.seal {
		return 0, base.Errorf(base.Unavailable, "the store is sealed for view %d and refuses a batch of view %d: this worker was replaced", e.seal, view)
	}
	if err := e.db.Apply(b.(*batch).b, pebble.NoSync); err != nil {
		return 0, base.Errorf(base.Unavailable, "the store refused a batch: %v", err)
	}
	return base.Number(e.appended.Add(1)), nil
}

// Appended implements store.Engine.
func (e *Engine) Appended() base.Number { return base.Number(e.appended.Load()) }

// Durable implements store.Engine.
func (e *Engine) Durable() base.Number { return base.Number(e.durable.Load()) }

// Syncs returns how often the log was synced for a group of waiters.
func (e *Engine) Syncs() uint64 { return e.syncs.Load() }

// Apply implements store.Engine.
func (e *Engine) Apply(b store.Batch) error {
	if err := e.db.Apply(b.(*batch).b, pebble.Sync); err != nil {
		return fmt.Errorf("apply a batch of %d bytes to the store: %w", b.Len(), err)
	}
	return nil
}

// Seal implements store.Engine.
func (e *Engine) Seal(v base.View) error {
	e.sealMu.Lock()
	defer e.sealMu.Unlock()
	if v < e.seal {
		return fmt.Errorf("seal the store for view %d: it is sealed for view %d already", v, e.seal)
	}
	if err := e.db.Set(sealKey, binary.BigEndian.AppendUint32(nil, uint32(v)), pebble.Sync); err != nil {
		return fmt.Errorf("seal the store for view %d: %w", v, err)
	}
	e.seal = v
	return nil
}

// Sealed implements store.Engine.
func (e *Engine) Sealed() base.View {
	e.sealMu.RLock()
	defer e.sealMu.RUnlock()
	return e.seal
}

// Close implements store.Engine.
func (e *Engine) Close() error { return e.db.Close() }

// batch implements store.Batch. Pebble's errors of Set and Delete are those of
// a closed or committed batch: programmer errors.
type batch struct{ b *pebble.Batch }

func (b *batch) Set(key, value []byte)     { must(b.b.Set(key, value, nil)) }
func (b *batch) Delete(key []byte)         { must(b.b.Delete(key, nil)) }
func (b *batch) DeleteRange(lo, hi []byte) { must(b.b.DeleteRange(lo, hi, nil)) }
func (b *batch) Len() int                  { return b.b.Len() }
func (b *batch) Release()                  { must(b.b.Close()) }

func must(err error) {
	if err != nil {
		panic("store: misused batch: " + err.Error())
	}
}

// fatalLogger sends Pebble's messages to slog and its fatal ones to onFatal.
type fatalLogger struct {
	log     *slog.Logger
	onFatal func(string)
}

func (l fatalLogger) Infof(format string, args ...any) { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l fatalLogger) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...))
}
func (l fatalLogger) Fatalf(format string, args ...any) { l.onFatal(fmt.Sprintf(format, args...)) }
