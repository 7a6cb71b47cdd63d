package workflow

import (
	_ "github.com/goccy/go-yaml/ast"
	_ "github.com/tenure-faas/tenure/base"
	_ "github.com/tenure-faas/tenure/leasemgr" // want workflow must not import leasemgr
	_ "github.com/tidwall/gjson"
)
