package check_test

import (
	"fmt"

	"github.com/tenure-faas/tenure/internal/check"
)

// A service acknowledged an append and lost it.
func ExampleCheck() {
	history := check.History{
		{ID: 1, Call: 0, Return: 10, Outcome: check.OK, Ops: []check.Op{{Kind: check.Append, Key: "x", Element: 1}}},
		{ID: 2, Call: 20, Return: 30, Outcome: check.OK, Ops: []check.Op{{Kind: check.Read, Key: "x", List: nil}}},
	}
	fmt.Print(check.Check(history, check.Options{}))
	// Output:
	// 1 anomaly in 2 transactions (2 committed), 2 operations, 1 keys, 6 edges
	//   G-single-realtime: T1 -rt-> T2 -rw-> T1
	//     T1 -rt-> T2: T1 returned at 10, before T2 was called at 20
	//     T2 -rw-> T1: T2 read "x" as absent, without T1's append of 1, which is in no read
}
