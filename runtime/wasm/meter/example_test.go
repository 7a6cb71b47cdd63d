package meter_test

import (
	"fmt"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

func ExampleRewrite() {
	// A function whose body is an endless loop.
	endless := wasm(
		sec(1, vec(typ(nil, nil))), sec(3, vec(u(0))), sec(7, vec(export("f", 0, 0))),
		sec(10, vec(fn(nil, loop, void, br, 0, end))),
	)
	out, err := meter.Rewrite(endless, meter.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(out.Functions, "function,", out.Loops, "loop,", out.Checks, "checks")

	_, err = meter.Rewrite(endless[:20], meter.Options{})
	fmt.Println(err)
	// Output:
	// 1 function, 1 loop, 2 checks
	// wasm module refused at byte 20: 5 bytes announced, 0 left
}
