package leasemgr

import (
	_ "github.com/tenure-faas/tenure/gateway" // want leasemgr must not import gateway
	_ "github.com/tenure-faas/tenure/runtime"
	_ "github.com/tenure-faas/tenure/store"
	_ "github.com/tenure-faas/tenure/worker" // want leasemgr must not import worker
	_ "github.com/tenure-faas/tenure/workflow"
)
