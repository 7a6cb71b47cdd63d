package wasm

import (
	_ "github.com/tenure-faas/tenure/runtime"
	_ "github.com/tenure-faas/tenure/runtime/wasm/meter"
	_ "github.com/tenure-faas/tenure/sdk/go"
	_ "github.com/tenure-faas/tenure/sdk/web" // want runtime must not import sdk/web
	_ "github.com/tenure-faas/tenure/store"   // want runtime must not import store
	_ "github.com/tenure-faas/tenure/worker"  // want runtime must not import worker
)
