package node

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/worker"
)

// router is the workers of a cluster as the gateway sees them. An invocation goes
// to the worker that its first written key belongs to, so that those of one key
// meet on one worker; without declared keys workers take turns.
type router struct {
	*cluster
	turn atomic.Uint64
}

// Execute implements gateway.Executor.
func (r *router) Execute(ctx context.Context, req *worker.Request) worker.Reply {
	place := placeOf(req, &r.turn)
	for range r.members {
		n := r.at(place)
		if n == nil {
			break
		}
		reply := n.worker.Execute(ctx, req)
		if reply.Err == nil || reply.Err.Kind != base.Unavailable || reply.Err.Unknown || r.at(place) == n {
			return reply
		}
		// The worker left while the invocation was on its way: nothing was changed.
	}
	return worker.Reply{ID: req.ID, Err: nobody()}
}

func nobody() *base.Error {
	return base.Errorf(base.Unavailable, "no worker is a member of the cluster now; nothing was started")
}

// placeOf says which place an invocation belongs to. Without declared keys places
// take turns.
func placeOf(req *worker.Request, turn *atomic.Uint64) uint64 {
	if req.Flow != nil {
		keys, err := req.Flow.DeclaredKeys(nil, req.Input)
		if err == nil && len(keys) > 0 {
			req.Keys = keys
			first := keys[0]
			for _, k := range keys {
				if k.Write {
					first = k
					break
				}
			}
			return uint64(first.Key.Slot())
		}
		return turn.Add(1) // a worker says what is wrong with the input
	}
	return placeOfOps(req.Ops)
}

func placeOfOps(ops []worker.Op) uint64 {
	if len(ops) == 0 {
		return 0
	}
	return uint64(ops[0].Key.Slot())
}

// at is the worker at a place, or one after it; nil if there is none.
func (r *router) at(place uint64) *incarnation {
	for i := range r.members {
		if n := r.members[(place+uint64(i))%uint64(len(r.members))].now.Load(); n != nil {
			return n
		}
	}
	return nil
}

// Record implements gateway.Executor: every worker reads the one store.
func (r *router) Record(id base.InvocationID) (worker.Record, error) {
	n := r.at(0)
	if n == nil {
		return worker.Record{}, nobody()
	}
	return n.worker.Record(id)
}

// Load implements gateway.Executor.
func (r *router) Load(ctx context.Context, ops []worker.Op) error {
	n := r.at(placeOfOps(ops))
	if n == nil {
		return nobody()
	}
	return n.worker.Load(ctx, ops)
}

// Logs implements gateway.Executor: the workers share a log.
func (r *router) Logs(after int64) ([]worker.LogEntry, <-chan struct{}) {
	return r.members[0].opt.Logs.After(after)
}

// Workers implements gateway.Executor.
func (r *router) Workers() []gateway.Status {
	all := make([]gateway.Status, 0, len(r.members))
	for _, m := range r.members {
		n := m.now.Load()
		if n == nil {
			continue
		}
		s, l := n.worker.Status(), n.worker.Leases()
		stats, known := l.Stats()
		all = append(all, gateway.Status{
			Name: s.Name, Provider: n.provider, View: s.View, Running: s.Running, Queued: s.Queued,
			Homes: l.Homes(), Leases: known, LocalInvocations: s.Local, LeasePulls: stats.Pulls,
		})
	}
	return all
}

// DrainWorker implements gateway.Executor.
func (r *router) DrainWorker(ctx context.Context, name string) error {
	for _, m := range r.members {
		if m.opt.Name == name {
			return r.release(ctx, m)
		}
	}
	return base.Errorf(base.NotFound, "no worker %q", name)
}

// Lease implements gateway.Executor: it asks every worker.
func (r *router) Lease(k base.Key) gateway.LeaseInfo {
	info := gateway.LeaseInfo{Mode: "none"}
	var why []string
	for _, m := range r.members {
		n := m.now.Load()
		if n == nil {
			continue
		}
		known := n.worker.Leases().Explain(k.Slot())
		describeLease(&info, &why, m.opt.Name, n.session.Member().Worker, &known)
	}
	info.Why = fmt.Sprintf("slot %d; workers keep what they used last", k.Slot())
	if len(why) > 0 {
		info.Why += "; " + strings.Join(why, "; ")
	}
	return info
}

// describeLease adds what a worker knows of a slot.
func describeLease(info *gateway.LeaseInfo, why *[]string, name string, number lease.Worker, known *lease.Knowledge) {
	info.Queue += known.Queue
	if known.Home == number {
		info.Home = name
	}
	if known.Successor != lease.Free {
		info.Queue++
	}
	switch known.State {
	case "held", "loading", "releasing":
		info.Holder, info.Mode = name, "exclusive"
		info.Epoch = uint64(known.View)<<32 | uint64(known.Ticket)
		if len(known.Readers) > 0 {
			info.Mode = "shared"
		}
	}
	if known.State != "" {
		*why = append(*why, fmt.Sprintf("%s: %v", name, known))
	}
}
