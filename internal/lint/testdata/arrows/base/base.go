package base

import (
	"fmt"

	_ "github.com/tenure-faas/tenure/internal/plant" // want base must not import internal/plant
	_ "github.com/tenure-faas/tenure/txn"            // want base must not import txn
	_ "golang.org/x/sync/errgroup"                   // want base must not import golang.org
)

var _ = fmt.Sprint
