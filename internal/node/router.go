package node

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/internal/cluster"
	"github.com/tenure-faas/tenure/worker"
)

// router is the workers of a cluster as the gateway sees them. An invocation goes
// to the worker that its first written key belongs to, so that those of one key
// meet on one worker; without declared keys workers take turns.
type router struct {
	*inProcess
	turn atomic.Uint64
}

// Execute implements gateway.Executor.
func (r *router) Execute(ctx context.Context, req *worker.Request) worker.Reply {
	place := cluster.PlaceOf(req, &r.turn)
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
	return worker.Reply{ID: req.ID, Err: cluster.Nobody()}
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
		return worker.Record{}, cluster.Nobody()
	}
	return n.worker.Record(id)
}

// Load implements gateway.Executor.
func (r *router) Load(ctx context.Context, ops []worker.Op) error {
	n := r.at(cluster.PlaceOfOps(ops))
	if n == nil {
		return cluster.Nobody()
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
		cluster.Describe(&info, &why, m.opt.Name, n.session.Member().Worker, &known)
	}
	info.Why = fmt.Sprintf("slot %d; workers keep what they used last", k.Slot())
	if len(why) > 0 {
		info.Why += "; " + strings.Join(why, "; ")
	}
	return info
}
