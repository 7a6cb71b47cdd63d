// Command guest is one simulation: its arguments are the seed and, if the log is
// wanted, "log". Its last line is the report, in JSON. Package host runs it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/tenure-faas/tenure/internal/sim"
)

// memoryLimit is from where on garbage is collected; few simulations have so much.
const memoryLimit = 256 << 20

func main() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	o := sim.Options{}
	var err error
	if len(os.Args) > 1 {
		o.Seed, err = strconv.ParseUint(os.Args[1], 10, 64)
	}
	if len(os.Args) < 2 || err != nil {
		fmt.Fprintln(os.Stderr, "usage: guest SEED [log]")
		os.Exit(2)
	}
	if len(os.Args) > 2 {
		o.Log = os.Stdout
	}
	raw, err := json.Marshal(sim.Run(o))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(raw))
}
