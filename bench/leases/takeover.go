package leases

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Takeover is one round of a worker that dies with the leases of many keys. Times
// after the kill include the time-out of its membership.
type Takeover struct {
	Load string `json:"load_average"`
	Keys int    `json:"keys"`
	// Slots is of how many slots the worker had the leases: keys of one hash share.
	Slots int `json:"slots"`
	// Evicted is from the kill to the view without the worker, at the one that
	// installed it last; all below is from then on.
	Evicted time.Duration `json:"kill_to_view_ns"`
	// Active is until the words of all homes were rebuilt, First until the first of
	// the keys was used, Sampled until all of the sample were, one by one, Sample of
	// them.
	Active  time.Duration `json:"view_to_active_ns"`
	First   time.Duration `json:"view_to_first_ns"`
	Sampled time.Duration `json:"view_to_sample_ns"`
	Sample  int           `json:"sample"`
	// All is until all keys were written, in bulk, of which Loading is what the same
	// took before, when one worker wrote them that had no leases yet.
	All     time.Duration `json:"view_to_all_ns"`
	Loading time.Duration `json:"loading_ns"`
	// Waits is how often the others had to wait for a lease from the kill until all
	// keys were written, and Waiting for how long, added up over all that were under
	// way at once; the first of them waited for the view. The rest of All is
	// transactions: values that nobody has at hand are read from the store one by one.
	Waits   uint64        `json:"waits"`
	Waiting time.Duration `json:"waiting_ns"`
	// Retried is how many requests had to be sent again, among them those that met
	// the worker that was dead.
	Retried int64 `json:"retried"`
}

// takers is how many requests are under way while keys are taken over.
const takers = 8

func takeover(ctx context.Context, o *Options, provider string) (_ *Takeover, err error) {
	c, err := startCluster(ctx, o, provider, 1, 2)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	t := &Takeover{Load: loadAverage(), Keys: o.Keys, Sample: o.Sample}
	if err := c.awaitMembers(ctx, 1); err != nil {
		return nil, err
	}
	// All that is written while it is alone is leased to w1.
	start := time.Now()
	if err := c.writeAll(ctx, t); err != nil {
		return nil, fmt.Errorf("write the keys at w1: %w", err)
	}
	t.Loading = time.Since(start)
	for _, name := range []string{"w2", "w3"} {
		if err := c.join(ctx, name); err != nil {
			return nil, err
		}
	}
	if err := c.awaitMembers(ctx, 3); err != nil {
		return nil, err
	}
	if t.Slots, err = c.heldSlots(ctx, o.Keys); err != nil {
		return nil, err
	}
	before, err := c.settledWaits(ctx, "w1")
	if err != nil {
		return nil, err
	}
	t.Retried = 0
	if err := c.takeOver(ctx, t); err != nil {
		return nil, err
	}
	after, err := c.settledWaits(ctx, "w1")
	if err != nil {
		return nil, err
	}
	waits := after.minus(before)
	t.Waits, t.Waiting = waits.count, time.Duration(waits.sum*float64(time.Second))
	return t, nil
}

func keyName(i int) string { return fmt.Sprintf("k%07d", i) }

// heldSlots checks that a sample of the keys is held by w1, and returns how many
// slots the keys have.
func (c *cluster) heldSlots(ctx context.Context, keys int) (int, error) {
	const sample = 50
	for range sample {
		key := keyName(rand.IntN(keys))
		err := await(ctx, func() error {
			o, err := c.owner(ctx, key)
			if err == nil && o.Holder != "w1" {
				err = fmt.Errorf("key %s is held by %q, want w1", key, o.Holder)
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return slotsOf(keys), nil
}

// takeOver kills w1 and has the others use what it held.
func (c *cluster) takeOver(ctx context.Context, t *Takeover) error {
	killed := time.Now()
	if err := c.workers["w1"].Kill(); err != nil {
		return err
	}
	first, err := c.useSample(ctx, t)
	sampled := time.Now()
	if err != nil {
		return err
	}
	if err := c.writeAll(ctx, t); err != nil {
		return fmt.Errorf("write the keys of the dead worker: %w", err)
	}
	all := time.Now()
	var view, active time.Time
	for _, name := range []string{"w2", "w3"} {
		installed, rebuilt, err := viewTimes(c.workers[name].Log(), 2, killed)
		if err != nil {
			return fmt.Errorf("worker %s: %w", name, err)
		}
		view, active = later(view, installed), later(active, rebuilt)
	}
	t.Evicted, t.Active = view.Sub(killed), active.Sub(view)
	t.First, t.Sampled, t.All = first.Sub(view), sampled.Sub(view), all.Sub(view)
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// useSample writes random keys, each in a transaction of its own, until each has
// worked once; first is when one did for the first time.
func (c *cluster) useSample(ctx context.Context, t *Takeover) (first time.Time, err error) {
	order := rand.Perm(t.Keys)[:t.Sample]
	var once sync.Once
	err = c.each(ctx, t, t.Sample, func(gateway, i int) error {
		err := c.put(ctx, gateway, keyName(order[i]))
		if err == nil {
			once.Do(func() { first = time.Now() })
		}
		return err
	})
	return first, err
}

// writeAll writes every key once, many in a transaction.
func (c *cluster) writeAll(ctx context.Context, t *Takeover) error {
	return c.each(ctx, t, (t.Keys+bulk-1)/bulk, func(gateway, i int) error {
		var keys []string
		for k := i * bulk; k < min((i+1)*bulk, t.Keys); k++ {
			keys = append(keys, keyName(k))
		}
		return c.put(ctx, gateway, keys...)
	})
}

// each does n things, several at a time through both gateways, each until it works.
func (c *cluster) each(ctx context.Context, t *Takeover, n int, do func(gateway, i int) error) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for taker := range takers {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				err := await(ctx, func() error {
					err := do(taker%len(c.gateways), i)
					if err != nil {
						atomic.AddInt64(&t.Retried, 1)
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// viewTimes finds in a worker's log when it installed the first view of some number
// of members after a time, and when its part of that view was active.
func viewTimes(log string, members int, after time.Time) (installed, active time.Time, err error) {
	// Lines have times in milliseconds, ours have more.
	after = after.Truncate(time.Millisecond)
	view := ""
	for _, m := range viewLine.FindAllStringSubmatch(log, -1) {
		at, err := time.Parse(time.RFC3339, m[1])
		if err != nil {
			return installed, active, fmt.Errorf("a line of the log has no time: %w", err)
		}
		switch {
		case at.Before(after):
		case view == "" && m[4] == fmt.Sprint(members):
			installed, view = at, m[3]
		case view != "" && m[4] == "" && m[3] == view:
			return installed, at, nil
		}
	}
	return installed, active, fmt.Errorf("its log does not say when a view of %d members was installed and active; its end:\n%.2000s", members, log)
}

// viewLine is a line of package worker/leases about a view: its time, what it says,
// the view, and how many members it has when it is installed.
var viewLine = regexp.MustCompile(`(?m)^time=(\S+) .*msg="(a view is installed|this worker's part of a view is active[^"]*)".* view=(\d+)(?: members=(\d+))?`)
