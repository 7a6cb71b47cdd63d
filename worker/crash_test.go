package worker_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/store/pebble"
	"github.com/tenure-faas/tenure/worker"
)

// image is what a power failure at one moment would have left on the disk, and
// what had been acknowledged by then.
type image struct {
	fs    *vfs.MemFS
	acked map[string]string // idempotency key -> output
	op    string
}

// camera takes an image before every write to the file system.
type camera struct {
	mu     sync.Mutex
	fs     *vfs.MemFS
	acked  map[string]string
	images []image
	rng    *rand.Rand
}

func (c *camera) ack(key, output string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked[key] = output
}

// MaybeError implements errorfs.Injector; it never fails the operation.
func (c *camera) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	acked := make(map[string]string, len(c.acked))
	for k, v := range c.acked {
		acked[k] = v
	}
	for _, percent := range []int{0, 50} { // only what was synced; and a random half of the rest
		c.images = append(c.images, image{
			fs:    c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng}),
			acked: acked, op: fmt.Sprintf("%v %s (%d%% of unsynced data kept)", op.Kind, op.Path, percent),
		})
	}
	return nil
}

func (c *camera) String() string { return "camera" }

// made drops the images of a store that was being made: it has acknowledged
// nothing, and Pebble cannot open one whose marker was kept and whose manifest was
// not.
func (c *camera) made() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.images = nil
}

// taken are the images so far: the store goes on writing.
func (c *camera) taken() []image {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.images)
}

const crashAccounts = 6

// TestCrashAtEveryWrite runs concurrent transfers and takes a crash image
// before every write to the disk. In each image nothing acknowledged is lost,
// no transfer is there by half, and repeating the idempotency keys gives each
// transfer one effect.
func TestCrashAtEveryWrite(t *testing.T) {
	mem := vfs.NewCrashableMem()
	cam := &camera{fs: mem, acked: map[string]string{}, rng: rand.New(rand.NewPCG(1, 1))}
	engine, err := pebble.Open(pebble.Options{Dir: "db", FS: errorfs.Wrap(mem, cam), MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	cam.made()
	if err := engine.Seal(1); err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(worker.Options{View: 1}, engine)
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, w: w, engine: engine, fns: handlers{"move": move}}
	const clients, each = 4, 15
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				k, input := crashTransfer(c, i)
				r := b.call("move", input, idempotent(k, input))
				if r.Err != nil {
					t.Errorf("transfer %s: %v", k, r.Err)
					return
				}
				cam.ack(k, string(r.Output))
			}
		})
	}
	wg.Wait()
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for i, img := range cam.images {
		verifyImage(t, i, img)
		if t.Failed() {
			return
		}
		acknowledged += len(img.acked)
	}
	t.Logf("%d crash images, %.1f acknowledged transfers in each on average", len(cam.images), float64(acknowledged)/float64(len(cam.images)))
	if len(cam.images) < clients*each || acknowledged == 0 {
		t.Errorf("%d images with %d acknowledgements: the test sees too little", len(cam.images), acknowledged)
	}
}

func crashTransfer(client, i int) (key, input string) {
	from := (client + i) % crashAccounts
	return fmt.Sprintf("c%d-%d", client, i), fmt.Sprintf("%d %d", from, (from+1+i%3)%crashAccounts)
}

func verifyImage(t *testing.T, i int, img image) {
	t.Helper()
	b := openBed(t, img.fs, worker.Options{}, handlers{"move": move})
	defer func() {
		if err := b.engine.Close(); err != nil {
			t.Errorf("image %d: close: %v", i, err)
		}
	}()
	sum := func() (n int) {
		for a := range crashAccounts {
			n += number([]byte(b.value(strconv.Itoa(a))))
		}
		return n
	}
	if n := sum(); n != 0 {
		t.Errorf("image %d (before %s): the accounts hold %d, half of a transfer is there", i, img.op, n)
	}
	moved := map[string]bool{}
	for c := range 4 {
		for n := range 15 {
			k, input := crashTransfer(c, n)
			r := b.call("move", input, idempotent(k, input))
			if r.Err != nil {
				t.Fatalf("image %d: repeat %s: %v", i, k, r.Err)
			}
			if output, acked := img.acked[k]; acked && (!r.Replayed || string(r.Output) != output) {
				t.Errorf("image %d (before %s): acknowledged transfer %s is lost", i, img.op, k)
			}
			moved[k] = true
		}
	}
	versions := 0
	for a := range crashAccounts {
		versions += int(b.ops(get(strconv.Itoa(a))).Results[0].Version)
	}
	if versions != 2*len(moved) {
		t.Errorf("image %d (before %s): %d writes of accounts for %d transfers: one has had two effects, or none", i, img.op, versions, len(moved))
	}
}

// TestReadsSurviveCrashes has workers write and read the same keys, so that leases
// and copies move all the time, and takes a crash image before every write to the
// disk: in each are all values whose readers had their answer by then.
func TestReadsSurviveCrashes(t *testing.T) { eachFate(t, readsSurviveCrashes) }

func readsSurviveCrashes(t *testing.T, fate *worker.Cluster) {
	const workers, each, keys = 3, 80, 3
	mem := vfs.NewCrashableMem()
	cam := &camera{fs: mem, acked: map[string]string{}, rng: rand.New(rand.NewPCG(1, 1))}
	c := clusterOn(t, slowly(errorfs.Wrap(mem, cam)), openTCP, workers, 1, fate, nil)
	cam.made()
	var wg sync.WaitGroup
	for w := lease.Worker(1); w <= workers; w++ {
		for _, write := range []bool{true, false} {
			wg.Go(func() {
				for i := range each {
					name := strconv.Itoa((int(w) + i) % keys)
					op := worker.Op{Kind: worker.OpGet, Key: key(name)}
					if write {
						op = add(name)
					}
					r := c.on(w).ops(op)
					if expect(t, r); r.Err != nil {
						return
					}
					cam.saw(name, r.Results[0].Version)
				}
			})
		}
	}
	wg.Wait()
	images := cam.taken()
	for _, img := range images {
		b := openBed(t, img.fs, worker.Options{}, nil)
		for name, seen := range img.acked {
			if got := b.version(key(name)); int(got) < number([]byte(seen)) {
				t.Errorf("before %s: %s is in version %d, and version %s was read", img.op, name, got, seen)
			}
		}
		if err := b.engine.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(images) < 50 || len(images[len(images)-1].acked) == 0 {
		t.Errorf("%d images: the test sees too little", len(images))
	}
}

// saw acknowledges a version of a key.
func (c *camera) saw(name string, v base.Version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, _ := strconv.Atoi(c.acked[name]); int(v) > before {
		c.acked[name] = strconv.Itoa(int(v))
	}
}
