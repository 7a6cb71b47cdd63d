package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store"
)

const (
	// maxDiskLog is how many batches wait for a sync. When there are as many, the
	// older half is written out, as an engine does when its buffers are full.
	maxDiskLog = 1 << 14
	// diskPage is how many keys a Scan reads at a time.
	diskPage = 64
)

// diskSeal is where the seal is kept; package pebble has it there too.
const diskSeal = "seal"

// diskRecord is a batch in the log.
type diskRecord struct {
	operations []diskOperation
	// number is that of an appended batch, or 0; view is that of a seal, or 0.
	number base.Number
	view   base.View
}

// Engine implements store.Engine on a simulated disk, from Open to Close or
// Crash. Who waits for the disk first makes the sync for all whose batches are in
// the log by then; the others wait for its end.
type Engine struct {
	disk *Disk
	// dead is closed when the engine is at its end.
	dead chan struct{}

	// All below is guarded by disk.mu.
	why   error // once dead
	state diskTable
	// log has the batches that are not synced, in order.
	log []diskRecord
	// written counts the batches that are.
	written           uint64
	appended, durable base.Number
	// seal refuses older views; sealed is the seal that is durable.
	seal, sealed base.View
	// syncing says that a sync is under way; group is closed, and made anew, when
	// it ends.
	syncing bool
	group   chan struct{}
}

var _ store.Engine = (*Engine)(nil)

func (e *Engine) recoverSeal() {
	raw, found := e.state.get(string(store.MetaKey(diskSeal)))
	if found && len(raw) == 4 {
		e.seal = base.View(binary.BigEndian.Uint32(raw))
		e.sealed = e.seal
	}
}

// push puts a batch at the end of the log and makes it visible. The caller holds
// mu; the engine is alive.
func (e *Engine) push(r diskRecord) {
	if len(e.log) >= maxDiskLog {
		e.settle(maxDiskLog / 2)
	}
	e.log = append(e.log, r)
	e.state.apply(r.operations)
}

// settle makes the first n batches of the log durable.
func (e *Engine) settle(n int) {
	e.write(n)
	for i := range e.log[:n] {
		e.durable = max(e.durable, e.log[i].number)
		e.sealed = max(e.sealed, e.log[i].view)
	}
	e.log = append([]diskRecord(nil), e.log[n:]...)
	e.written += uint64(n)
}

// Append implements store.Engine.
func (e *Engine) Append(view base.View, b store.Batch) (base.Number, error) {
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.why != nil {
		return 0, e.why
	}
	if view < e.seal {
		return 0, base.Errorf(base.Unavailable, "the store is sealed for view %d and refuses a batch of view %d: this worker was replaced", e.seal, view)
	}
	e.appended++
	e.push(diskRecord{operations: b.(*diskBatch).take(), number: e.appended})
	return e.appended, nil
}

// Apply implements store.Engine.
func (e *Engine) Apply(b store.Batch) error {
	place, err := e.place(func() (diskRecord, error) {
		return diskRecord{operations: b.(*diskBatch).take()}, nil
	})
	if err == nil {
		err = e.flush(context.Background(), func() bool { return e.written >= place })
	}
	if err != nil {
		return fmt.Errorf("apply a batch of %d bytes to the store: %w", b.Len(), err)
	}
	return nil
}

// Seal implements store.Engine. Appends of older views are refused from its
// beginning on, and Sealed has it at its end.
func (e *Engine) Seal(v base.View) error {
	place, err := e.place(func() (diskRecord, error) {
		if v < e.seal {
			return diskRecord{}, fmt.Errorf("it is sealed for view %d already", e.seal)
		}
		e.seal = v
		seal := diskOperation{kind: diskSet, key: string(store.MetaKey(diskSeal)), value: binary.BigEndian.AppendUint32(nil, uint32(v))}
		return diskRecord{operations: []diskOperation{seal}, view: v}, nil
	})
	if err == nil {
		err = e.flush(context.Background(), func() bool { return e.written >= place })
	}
	if err != nil {
		return fmt.Errorf("seal the store for view %d: %w", v, err)
	}
	return nil
}

// place puts in the log what record gives, under mu, and returns how many batches
// must be written for it to be durable.
func (e *Engine) place(record func() (diskRecord, error)) (uint64, error) {
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.why != nil {
		return 0, e.why
	}
	r, err := record()
	if err != nil {
		return 0, err
	}
	e.push(r)
	return e.written + uint64(len(e.log)), nil
}

// WaitDurable implements store.Engine. Who makes the sync leaves when it ends;
// the others leave at once when ctx ends. A number that was never given is an
// error, because nothing would end the wait.
func (e *Engine) WaitDurable(ctx context.Context, n base.Number) error {
	d := e.disk
	d.mu.Lock()
	appended, why := e.appended, e.why
	d.mu.Unlock()
	if why == nil && n > appended {
		return fmt.Errorf("wait for batch %d: %d batches were appended", n, appended)
	}
	return e.flush(ctx, func() bool { return e.durable >= n })
}

// flush returns nil once done, which is asked under mu, is true.
func (e *Engine) flush(ctx context.Context, done func() bool) error {
	d := e.disk
	for {
		d.mu.Lock()
		if e.why != nil || done() {
			err := e.why
			d.mu.Unlock()
			return err
		}
		if err := ctx.Err(); err != nil {
			d.mu.Unlock()
			return err
		}
		if !e.syncing {
			e.sync() // gives up mu
			continue
		}
		group := e.group
		d.mu.Unlock()
		select {
		case <-group:
		case <-e.dead:
		case <-ctx.Done():
		}
	}
}

// sync makes durable what is in the log now. The caller holds mu, which sync
// gives up; no other sync is under way and the engine is alive.
func (e *Engine) sync() {
	d := e.disk
	e.syncing = true
	n := uint64(len(e.log)) + e.written
	takes := d.within(d.faults.Sync)
	if d.chance(d.faults.SlowSync) {
		takes = d.within(d.faults.Slow)
	}
	fails := d.chance(d.faults.FailSync)
	d.mu.Unlock()

	e.pause(takes)

	d.mu.Lock()
	if e.why != nil {
		d.mu.Unlock()
		return
	}
	if fails {
		e.kill("a sync has failed")
		d.mu.Unlock()
		if d.onFatal != nil {
			d.onFatal("simulated disk: a sync has failed: what the disk holds is not known")
		}
		return
	}
	if n > e.written { // a full log may have been written out meanwhile
		e.settle(int(n - e.written))
	}
	e.syncing = false
	close(e.group)
	e.group = make(chan struct{})
	d.mu.Unlock()
}

// pause takes time of the simulation, until the engine is dead at most.
func (e *Engine) pause(takes time.Duration) {
	if takes <= 0 {
		return
	}
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.dead:
	}
}

// read takes the time of a read and then calls look under mu, if nothing fails.
func (e *Engine) read(look func()) error {
	d := e.disk
	d.mu.Lock()
	if e.why != nil {
		defer d.mu.Unlock()
		return e.why
	}
	takes, fails := d.within(d.faults.Read), d.chance(d.faults.FailRead)
	d.mu.Unlock()
	e.pause(takes)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case e.why != nil:
		return e.why
	case fails:
		return errors.New("simulated disk: input/output error")
	}
	look()
	return nil
}

// Get implements store.Reader.
func (e *Engine) Get(dst, key []byte) (value []byte, found bool, err error) {
	if err := e.read(func() { value, found = e.state.get(string(key)) }); err != nil {
		return dst, false, fmt.Errorf("read %q from the store: %w", key, err)
	}
	return append(dst, value...), found, nil
}

// Scan implements store.Reader. It reads a page at a time, so that what is
// written meanwhile may be seen further on. An empty hi is no bound.
func (e *Engine) Scan(lo, hi []byte, visit func(key, value []byte) bool) error {
	from, to := string(lo), string(hi)
	var page []diskEntry
	var key, value []byte
	for {
		if err := e.read(func() { page = e.state.page(page[:0], from, to, diskPage) }); err != nil {
			return fmt.Errorf("scan the store from %q: %w", lo, err)
		}
		for i := range page {
			key, value = append(key[:0], page[i].key...), append(value[:0], page[i].value...)
			if !visit(key, value) {
				return nil
			}
		}
		if len(page) < diskPage {
			return nil
		}
		from = page[len(page)-1].key + "\x00"
	}
}

// NewBatch implements store.Engine.
func (e *Engine) NewBatch() store.Batch { return &diskBatch{} }

// Appended implements store.Engine. After the engine's end it is the last one.
func (e *Engine) Appended() base.Number {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	return e.appended
}

// Durable implements store.Engine. After the engine's end it is the last one.
func (e *Engine) Durable() base.Number {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	return e.durable
}

// Sealed implements store.Engine. After the engine's end it is the last one.
func (e *Engine) Sealed() base.View {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	return e.sealed
}

// Close implements store.Engine. It waits for a sync; of an engine that is dead
// it is an error, as every other call.
func (e *Engine) Close() error {
	if err := e.flush(context.Background(), func() bool { return len(e.log) == 0 }); err != nil {
		return fmt.Errorf("close the store: %w", err)
	}
	d := e.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.why != nil {
		return fmt.Errorf("close the store: %w", e.why)
	}
	e.settle(len(e.log))
	e.end("it was closed by its owner")
	return nil
}
