package txn

import (
	_ "github.com/tenure-faas/tenure/store" // tests may
	_ "pgregory.net/rapid"
)
