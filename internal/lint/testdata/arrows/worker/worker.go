package worker

import (
	_ "github.com/tenure-faas/tenure/gateway"       // want worker must not import gateway
	_ "github.com/tenure-faas/tenure/internal/node" // want worker must not import internal/node
	_ "github.com/tenure-faas/tenure/leasemgr"      // want worker must not import leasemgr
	_ "github.com/tenure-faas/tenure/store"
	_ "github.com/tenure-faas/tenure/txn"
	_ "github.com/tenure-faas/tenure/workflow"
)
