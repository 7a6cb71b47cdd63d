package main

import (
	_ "github.com/tenure-faas/tenure/bench"
	_ "github.com/tenure-faas/tenure/internal/check" // want cmd must not import internal/check
	_ "github.com/tenure-faas/tenure/internal/node"
)
