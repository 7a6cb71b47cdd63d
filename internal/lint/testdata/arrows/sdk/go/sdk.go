package tenure

import (
	_ "strconv"

	_ "github.com/tenure-faas/tenure/base" // want sdk must not import base
	_ "github.com/tenure-faas/tenure/sdk/go/sub"
	_ "github.com/tidwall/gjson" // want sdk must not import github.com/tidwall/gjson
)
