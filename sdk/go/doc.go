// Package tenure is what the author of a Tenure function imports.
//
// A function is a Go program that registers its handlers and is compiled to a
// WebAssembly module, which is then deployed:
//
//	package main
//
//	import "github.com/tenure-faas/tenure/sdk/go"
//
//	func init() { tenure.Handle("count", count) }
//
//	func count(ctx *tenure.Context) ([]byte, error) {
//		n, err := ctx.GetInt("counters", ctx.JSON().Get("name").String())
//		if err != nil {
//			return nil, err
//		}
//		return tenure.NewObject().Int("count", n).Bytes(), nil
//	}
//
//	func main() {}
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o count.wasm .
//
// What a handler reads and writes through its Context is part of one strictly
// serializable transaction: it commits with all other steps of the workflow or
// leaves no trace. The platform may run a handler several times before one run
// commits, so a handler must have no effect except through its Context.
//
// The same handlers run natively, compiled into a server or under `go test`
// (see the package tenuretest): a Context works on any Host.
//
// The package imports only the standard library, and links encoding/json and
// fmt into a guest only if Context.Decode or Context.Log is used. It keeps one
// piece of package-level state, the handlers that init functions registered.
//
// Start reading at Handle and Context.
package tenure
