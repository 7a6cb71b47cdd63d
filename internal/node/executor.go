package node

import (
	"context"
	"fmt"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/worker"
)

// executor is the one worker as the gateway sees it: the rows about the
// cluster and about leases describe it.
type executor struct {
	*worker.Worker
	address string
}

// Workers implements gateway.Executor. One worker is the home of every slot and
// holds the lease of each.
func (e executor) Workers() []gateway.Status {
	s := e.Worker.Status()
	return []gateway.Status{{
		Name: s.Name, Address: e.address, Provider: "local", View: s.View,
		Running: s.Running, Queued: s.Queued,
		Homes: base.SlotCount, Leases: base.SlotCount, LocalInvocations: s.Local,
	}}
}

// DrainWorker implements gateway.Executor: the one worker stays.
func (e executor) DrainWorker(_ context.Context, name string) error {
	if name != e.Worker.Name() {
		return base.Errorf(base.NotFound, "no worker %q", name)
	}
	return base.Errorf(base.InUse, "%s is the only worker: stop the server instead", name)
}

// Lease implements gateway.Executor.
func (e executor) Lease(k base.Key) gateway.LeaseInfo {
	name := e.Worker.Name()
	l := e.Worker.Lease(k)
	why := fmt.Sprintf("%s is the only worker: every slot is placed there (slot %d)", name, k.Slot())
	if l.Holders > 0 {
		why += fmt.Sprintf("; %d transactions hold it %s now", l.Holders, l.Mode)
	}
	return gateway.LeaseInfo{Holder: name, Mode: "exclusive", Epoch: uint64(l.View), Queue: l.Waiting, Home: name, Why: why}
}
