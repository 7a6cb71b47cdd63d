package cluster

import (
	"fmt"
	"sync/atomic"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/worker"
)

// Nobody is the answer where there is no worker.
func Nobody() *base.Error {
	return base.Errorf(base.Unavailable, "no worker is a member of the cluster now; nothing was started")
}

// PlaceOf says which place an invocation belongs to. Without declared keys places
// take turns.
func PlaceOf(req *worker.Request, turn *atomic.Uint64) uint64 {
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
	return PlaceOfOps(req.Ops)
}

// PlaceOfOps is PlaceOf for a list of operations.
func PlaceOfOps(ops []worker.Op) uint64 {
	if len(ops) == 0 {
		return 0
	}
	return uint64(ops[0].Key.Slot())
}

// Describe adds what a worker knows of a slot to info and why.
func Describe(info *gateway.LeaseInfo, why *[]string, name string, number lease.Worker, known *lease.Knowledge) {
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
