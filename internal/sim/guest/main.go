// Command guest is one simulation: its arguments are the seed and, if the log is
// wanted, "log". Package host runs it.
package main

import (
	"io"
	"slices"

	"github.com/tenure-faas/tenure/internal/sim"
	"github.com/tenure-faas/tenure/internal/sim/host/inside"
)

func main() {
	inside.Main(func(seed uint64, args []string, out io.Writer) (string, map[string]int64) {
		o := sim.Options{Seed: seed}
		if slices.Contains(args, "log") {
			o.Log = out
		}
		r := sim.Run(o)
		return r.Failure, r.Figures
	})
}
