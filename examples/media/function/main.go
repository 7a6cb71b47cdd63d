// Command function is the media example as a WebAssembly module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o media.wasm .
package main

import (
	"github.com/tenure-faas/tenure/examples/media"
	"github.com/tenure-faas/tenure/sdk/go"
)

func init() {
	for name, handler := range media.Handlers() {
		tenure.Handle(name, handler)
	}
}

func main() {}
