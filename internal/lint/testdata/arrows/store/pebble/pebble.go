package pebble

import (
	_ "github.com/cockroachdb/pebble/v2"
	_ "github.com/tenure-faas/tenure/base"
	_ "github.com/tenure-faas/tenure/gateway" // want store must not import gateway
	_ "github.com/tenure-faas/tenure/runtime" // want store must not import runtime
	_ "github.com/tenure-faas/tenure/sdk/go"  // want store must not import sdk/go
	_ "github.com/tenure-faas/tenure/store"
	_ "github.com/tenure-faas/tenure/txn" // want store must not import txn
)
