package membership

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
)

// Decision is a new membership. It is immutable.
type Decision struct {
	// View is its number.
	View base.View
	// Members are its members, by number.
	Members []Member
	// Record is what has to be made durable before anybody hears of it.
	Record Record
}

// Tick lets time pass. It returns a decision if one is due and none is under
// way; the shell makes it durable and calls Durable, seals the store and
// publishes it and calls Published. An error means that the views are used up.
func (c *Core) Tick(now time.Duration) (*Decision, error) {
	c.observe(now)
	if c.phase != idle || c.due == 0 || c.now < c.due {
		return nil, nil
	}
	if c.view >= lease.MaxView {
		return nil, fmt.Errorf("membership: view %d is the last one that a lease word can name: stop the cluster, and start it with a new leasemgr directory and store", c.view)
	}
	c.due = 0
	c.view++
	c.phase = deciding
	for _, w := range c.names {
		if w.current != nil && w.current.leaving {
			c.strike(w)
			w.depart(c.view)
		}
		if w.joining != nil {
			w.highest = max(w.highest, uint32(c.floor)) + 1
			w.current = &member{Instance: *w.joining, incarnation: w.highest, since: c.view, renewed: c.now, admitted: c.now}
			w.joining = nil
		}
	}
	return c.Current(), nil
}

// depart takes the current instance of a worker out.
func (w *worker) depart(v base.View) {
	w.past = append(w.past, w.current.Nonce)
	if extra := len(w.past) - RememberedNonces; extra > 0 {
		w.past = slices.Delete(w.past, 0, extra)
	}
	w.current, w.left = nil, v
}

// Durable says that the last decision is.
func (c *Core) Durable() { c.phase = sealing }

// Published says that the store is sealed for the last decision and that it is
// published. Members that it admits live for a TTL from now: they could not
// renew before.
func (c *Core) Published(now time.Duration) {
	c.observe(now)
	for _, w := range c.names {
		if m := w.current; m != nil && m.since > c.published {
			m.renewed = c.now
		}
	}
	c.published, c.phase = c.view, idle
}

// Unpublished says whether the last decision waits to be sealed and published.
func (c *Core) Unpublished() bool { return c.phase == sealing }

// Current returns the last decision again.
func (c *Core) Current() *Decision {
	d := &Decision{View: c.view, Record: c.record()}
	for _, w := range c.names {
		if w.current != nil {
			d.Members = append(d.Members, w.public())
		}
	}
	slices.SortFunc(d.Members, func(a, b Member) int { return cmp.Compare(a.Worker, b.Worker) })
	return d
}

func (w *worker) public() Member {
	m := w.current
	return Member{Member: lease.Member{Worker: w.number, Incarnation: m.incarnation},
		Name: w.name, Address: m.Address, Provider: m.Provider, Zone: m.Zone}
}

// Report is what operators may want to know of a member.
type Report struct {
	Member
	// Since is the view that admitted it.
	Since base.View
	// Renewed is how long ago it was renewed last.
	Renewed time.Duration
	// Leaving says that the next view is without it.
	Leaving bool
}

// State returns the last decided view, its members by number, and the names of
// those who wait for admission, sorted.
func (c *Core) State(now time.Duration) (view base.View, members []Report, joining []string) {
	c.observe(now)
	for _, name := range slices.Sorted(maps.Keys(c.names)) {
		w := c.names[name]
		if m := w.current; m != nil {
			members = append(members, Report{Member: w.public(), Since: m.since, Renewed: c.now - m.renewed, Leaving: m.leaving || m.yields})
		}
		if w.joining != nil {
			joining = append(joining, name)
		}
	}
	slices.SortFunc(members, func(a, b Report) int { return cmp.Compare(a.Worker, b.Worker) })
	return c.view, members, joining
}
