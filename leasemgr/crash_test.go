package leasemgr_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/workflow"
)

// image is what a power failure at one moment would have left on the disk.
type image struct {
	fs vfs.FS
	// done is how many steps had been acknowledged by then.
	done int
	op   string
}

// camera takes images before every write to the file system.
type camera struct {
	mu     sync.Mutex // Pebble writes from goroutines of its own
	fs     *vfs.MemFS
	done   int
	images []image
	rng    *rand.Rand
}

// MaybeError implements errorfs.Injector; it never fails the operation.
func (c *camera) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.shoot(fmt.Sprintf("before %v %s", op.Kind, op.Path))
	}
	return nil
}

// shoot takes two images: of what was synced, and of a random half of the rest.
func (c *camera) shoot(when string) {
	for _, percent := range []int{0, 50} {
		c.images = append(c.images, image{
			fs:   c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng}),
			done: c.done, op: fmt.Sprintf("%s, %d%% of unsynced data kept", when, percent),
		})
	}
}

// acknowledge notes that a step has returned.
func (c *camera) acknowledge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	c.shoot("after a step")
}

func (c *camera) String() string { return "camera" }

// crashStep is one change of what the leasemgr keeps.
type crashStep struct {
	name string
	do   func(ctx context.Context, b *bed) error
}

func crashDeploy(name, module string) crashStep {
	return crashStep{fmt.Sprintf("deploy %s as %q", name, module), func(ctx context.Context, b *bed) error {
		_, _, err := b.cat.DeployFunction(ctx, name, []byte(module), false)
		return err
	}}
}

func crashPut(name, definition string) crashStep {
	return crashStep{"put " + name, func(ctx context.Context, b *bed) error {
		_, _, err := b.cat.PutWorkflow(ctx, name, []byte(definition), workflow.YAML)
		return err
	}}
}

func crashSteps() []crashStep {
	admission := crashStep{"admit", func(_ context.Context, b *bed) error {
		_, err := leasemgr.Admit(b.engine, "w")
		return err
	}}
	steps := []crashStep{
		admission,
		crashDeploy("bank", "pay audit"),
		crashPut("transfer", oneStep("bank", "pay")),
		crashDeploy("bank", "pay"),
		crashPut("transfer", "functions: {step: {function: bank, handler: pay}, more: {function: bank, handler: pay}}"),
		admission,
	}
	for i := range 12 { // over the bound of versions: old modules go
		steps = append(steps, crashDeploy("bank", fmt.Sprintf("pay #%d", i)))
	}
	return append(steps,
		crashStep{"remove the workflow", func(ctx context.Context, b *bed) error { return b.cat.RemoveWorkflow(ctx, "transfer") }},
		crashStep{"remove the function", func(ctx context.Context, b *bed) error { return b.cat.RemoveFunction(ctx, "bank") }},
		admission,
	)
}

// crashState is what is to be found after a number of steps.
type crashState struct {
	visible string
	modules []string
	members leasemgr.Membership
	sealed  base.View
}

func (b *bed) state() crashState {
	b.t.Helper()
	members, err := leasemgr.ReadMembership(b.engine)
	if err != nil {
		b.t.Fatal(err)
	}
	return crashState{b.visible(), b.modules(), members, b.engine.Sealed()}
}

// TestCrashBetweenSteps takes crash images before every write to the disk and
// after every step. Each shows the catalogue and the membership as they were
// before the step or as they are after it, never half, and whatever was
// acknowledged.
func TestCrashBetweenSteps(t *testing.T) {
	mem := vfs.NewCrashableMem()
	cam := &camera{fs: mem, rng: rand.New(rand.NewPCG(1, 1))}
	b := open(t, errorfs.Wrap(mem, cam), nil)
	// Images of the time before the store was created show no store at all.
	cam.mu.Lock()
	cam.images = nil
	cam.mu.Unlock()
	states := []crashState{b.state()}
	steps := crashSteps()
	for _, step := range steps {
		if err := step.do(t.Context(), b); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		states = append(states, b.state())
		cam.acknowledge()
	}
	b.close()
	for i, img := range cam.images {
		checkImage(t, img, steps, states)
		if t.Failed() {
			t.Fatalf("image %d of %d", i, len(cam.images))
		}
	}
	t.Logf("%d crash images of %d steps", len(cam.images), len(steps))
	if len(cam.images) < 4*len(steps) {
		t.Errorf("%d images of %d steps: the test sees too little", len(cam.images), len(steps))
	}
}

// checkImage opens one image and compares it with the states around it.
func checkImage(t *testing.T, img image, steps []crashStep, states []crashState) {
	t.Helper()
	b := open(t, img.fs, nil)
	defer b.close()
	got := b.state()
	old, next := states[img.done], states[min(img.done+1, len(states)-1)]
	during := "the end"
	if img.done < len(steps) {
		during = steps[img.done].name
	}
	whole := func(s crashState) bool {
		return got.visible == s.visible && slices.Equal(got.modules, s.modules) &&
			got.members.View == s.members.View && got.members.Members["w"] == s.members.Members["w"]
	}
	if !whole(old) && !whole(next) {
		t.Errorf("%s during %s: found\n%+v\nwant\n%+v\nor\n%+v", img.op, during, got, old, next)
	}
	// The view is decided first and the seal comes after it, so a crash between
	// them leaves the seal behind and never ahead.
	if got.sealed < old.sealed || got.sealed > got.members.View {
		t.Errorf("%s during %s: sealed for view %d, the view is %d, the last seal was %d", img.op, during, got.sealed, got.members.View, old.sealed)
	}
	m, err := leasemgr.Admit(b.engine, "w")
	if err != nil || m.View <= got.members.View || m.Members["w"] <= got.members.Members["w"] || b.engine.Sealed() != m.View {
		t.Errorf("%s during %s: admitted as %+v, %v after %+v, sealed for %d", img.op, during, m, err, got.members, b.engine.Sealed())
	}
}
