// Command function is the bank as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o bank.wasm .
package main

import (
	"github.com/tenure-faas/tenure/examples/bank"
	"github.com/tenure-faas/tenure/sdk/go"
)

func init() {
	for name, handler := range bank.Handlers() {
		tenure.Handle(name, handler)
	}
}

func main() {}
