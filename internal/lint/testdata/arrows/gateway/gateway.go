package gateway

import (
	_ "github.com/tenure-faas/tenure/cmd/internal/cli" // want gateway must not import cmd/internal/cli
	_ "github.com/tenure-faas/tenure/internal/check"   // want gateway must not import internal/check
	_ "github.com/tenure-faas/tenure/leasemgr"
	_ "github.com/tenure-faas/tenure/worker"
)
