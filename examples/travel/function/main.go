// Command function is the travel example as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o travel.wasm .
package main

import (
	"github.com/tenure-faas/tenure/examples/travel"
	"github.com/tenure-faas/tenure/sdk/go"
)

func init() {
	for name, handler := range travel.Handlers() {
		tenure.Handle(name, handler)
	}
}

func main() {}
