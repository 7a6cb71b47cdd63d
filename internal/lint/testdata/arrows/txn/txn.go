package txn

import (
	_ "github.com/tenure-faas/tenure/base"
	_ "github.com/tenure-faas/tenure/internal/plant"
	_ "github.com/tenure-faas/tenure/store"    // want txn must not import store
	_ "github.com/tenure-faas/tenure/worker"   // want txn must not import worker
	_ "github.com/tenure-faas/tenure/workflow" // want txn must not import workflow
	_ "github.com/tidwall/gjson"               // want txn must not import github.com/tidwall/gjson
)
