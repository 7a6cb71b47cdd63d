package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/base"
	verbs "github.com/tenure-faas/tenure/rdma/sim"
)

// DiskFaults is how a simulated disk behaves. The zero value is a disk that takes
// no time and never fails.
type DiskFaults struct {
	// Sync is how long a sync takes.
	Sync verbs.Range
	// SlowSync is the chance, 0 to 1, that a sync takes Slow instead.
	SlowSync float64
	// Slow is how long a slow sync takes.
	Slow verbs.Range
	// FailSync is the chance, 0 to 1, that a sync fails, at its end. The engine is
	// then dead as after a crash, and OnFatal is called.
	FailSync float64
	// Read is how long a Get takes, and each page of a Scan.
	Read verbs.Range
	// FailRead is the chance, 0 to 1, that a Get or a page of a Scan fails.
	FailRead float64
}

func (o *DiskFaults) validate() error {
	var all []error
	for _, r := range []struct {
		name  string
		value verbs.Range
	}{{"Sync", o.Sync}, {"Slow", o.Slow}, {"Read", o.Read}} {
		if r.value.Min < 0 || r.value.Max < r.value.Min || r.value.Max > time.Hour {
			all = append(all, fmt.Errorf("%s is %v, want 0 <= Min <= Max <= 1h", r.name, r.value))
		}
	}
	for _, p := range []struct {
		name  string
		value float64
	}{{"SlowSync", o.SlowSync}, {"FailSync", o.FailSync}, {"FailRead", o.FailRead}} {
		if !(p.value >= 0 && p.value <= 1) {
			all = append(all, fmt.Errorf("%s is %v, want 0 to 1", p.name, p.value))
		}
	}
	return errors.Join(all...)
}

// DiskOptions are the options of NewDisk.
type DiskOptions struct {
	// Random decides everything that is left to chance; the disk owns it from now
	// on. Required.
	Random *rand.Rand
	// Faults is how the disk behaves at first.
	Faults DiskFaults
	// OnFatal is called, once for each engine whose sync has failed, after it is
	// dead and without any lock held; it stops the process that the engine belongs
	// to. It may return, and Open the disk again. nil means that nobody is told.
	OnFatal func(message string)
}

// Disk is a simulated disk. It survives the crashes of the process that uses it;
// one engine at a time is open on it. It is safe for concurrent use.
//
// A sync makes durable what was in the log when it began. A crash leaves all
// that was synced, and of the batches behind that as many, from the first on, as
// chance has it: a disk writes ahead of the sync, and never half a batch,
// because a log has sums.
type Disk struct {
	onFatal func(string)

	// mu guards all below, and all of the engines. It is held for no time of the
	// simulation.
	mu     sync.Mutex
	random *rand.Rand
	faults DiskFaults
	// kept is what a crash leaves in any case.
	kept   diskTable
	engine *Engine // the open one, or nil
}

// NewDisk makes an empty disk. It panics if the options are out of their ranges,
// which is a fault of the program.
func NewDisk(options DiskOptions) *Disk {
	if options.Random == nil {
		panic("sim: a disk needs a source of chance")
	}
	d := &Disk{onFatal: options.OnFatal, random: options.Random}
	d.SetFaults(options.Faults)
	return d
}

// SetFaults changes how the disk behaves, for what begins from now on. It panics
// as NewDisk does.
func (d *Disk) SetFaults(faults DiskFaults) {
	if err := faults.validate(); err != nil {
		panic(fmt.Sprintf("sim: faults of a disk: %v", err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = faults
}

// Open starts an engine on what the disk has. It fails while another is open,
// neither closed nor crashed.
func (d *Disk) Open() (*Engine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine != nil {
		return nil, errors.New("open a simulated disk: another engine is open on it; close it, or crash the disk, before")
	}
	e := &Engine{disk: d, state: d.kept.clone(), group: make(chan struct{}), dead: make(chan struct{})}
	e.recoverSeal()
	d.engine = e
	return e, nil
}

// Crash is the sudden end of the process that has the disk open, if one has:
// all calls of its engine fail from now on, those that wait too, and nothing of
// it reaches the disk any more.
func (d *Disk) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine != nil {
		d.engine.kill("its process has crashed")
	}
}

// kill ends an engine where it stands: a part of the log survives. The caller
// holds mu; the engine is open.
func (e *Engine) kill(why string) {
	e.write(e.disk.random.IntN(len(e.log) + 1))
	e.end(why)
}

// end makes every call of the engine fail.
func (e *Engine) end(why string) {
	e.why = base.Errorf(base.Unavailable, "simulated disk: the engine is closed: %s", why)
	e.log = nil
	e.disk.engine = nil
	close(e.dead)
}

// write puts the first n batches of the log on the disk.
func (e *Engine) write(n int) {
	for i := range e.log[:n] {
		e.disk.kept.apply(e.log[i].operations)
	}
}

// chance is true with probability p. It draws only if there is a choice. The
// caller holds mu.
func (d *Disk) chance(p float64) bool { return p > 0 && d.random.Float64() < p }

// within draws a duration. The caller holds mu.
func (d *Disk) within(r verbs.Range) time.Duration {
	if r.Min == r.Max {
		return r.Min
	}
	return r.Min + time.Duration(d.random.Int64N(int64(r.Max-r.Min)+1))
}
