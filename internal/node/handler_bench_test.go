package node_test

import (
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/wasm"
)

// fixedHost answers every Get with one balance and forgets writes, so that a
// benchmark shows what the handler and its runtime cost and nothing else.
type fixedHost struct{ withdrawn []byte }

func (fixedHost) Get(string, string) ([]byte, bool, error)          { return []byte("1000000"), true, nil }
func (fixedHost) Put(string, string, []byte) error                  { return nil }
func (fixedHost) Delete(string, string) error                       { return nil }
func (fixedHost) Add(string, string, int64) error                   { return nil }
func (fixedHost) Scan(string, string, int) ([]runtime.Entry, error) { return nil, nil }
func (fixedHost) Call(string, string, []byte) ([]byte, error)       { return nil, nil }
func (h fixedHost) Result(string) ([]byte, bool)                    { return h.withdrawn, true }
func (fixedHost) Abort(string)                                      {}
func (fixedHost) Now() time.Time                                    { return time.Time{} }
func (fixedHost) Rand() uint64                                      { return 4 }
func (fixedHost) Log(string)                                        {}
func (fixedHost) InvocationID() base.InvocationID                   { return base.InvocationID{} }

// BenchmarkHandlers runs the two handlers of a transfer without a transaction
// around them.
func BenchmarkHandlers(b *testing.B) {
	input := []byte(`{"from":"a0001234","to":"a0004321","amount":17}`)
	for _, kind := range []string{"native", "wasm"} {
		bundle := nativeBank(b)["bank"]
		if kind == "wasm" {
			rt, err := wasm.New(b.Context(), wasm.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer rt.Close(b.Context())
			module, err := bankModule()
			if err != nil {
				b.Fatal(err)
			}
			if bundle, err = rt.Load(b.Context(), "bank", module, false); err != nil {
				b.Fatal(err)
			}
		}
		for _, handler := range []string{"withdraw", "deposit"} {
			b.Run(handler+"/"+kind, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := bundle.Invoke(b.Context(), runtime.Call{
						Handler: handler, Input: input, Host: fixedHost{[]byte(`{"from_balance":999983}`)},
					}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
