// Command simulate runs seeds of the simulation and says what it found:
//
//	go run ./internal/sim/simulate -n 20000
//	go run ./internal/sim/simulate -seed 4711 -log
//	go run ./internal/sim/simulate -n 2000 -plant no-seal,keep-copies
//
// It exits with 1 if a seed failed; with planted bugs, if one of them failed none.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/internal/sim/host"
)

type options struct {
	seed, n uint64
	jobs    int
	log     bool
	plant   string
	most    int
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "the first seed")
	flag.Uint64Var(&o.n, "n", 1, "how many seeds")
	flag.IntVar(&o.jobs, "j", runtime.GOMAXPROCS(0), "how many at a time")
	flag.BoolVar(&o.log, "log", false, "show what happens; for one seed")
	flag.StringVar(&o.plant, "plant", "", "plant each of these bugs (package plant), and say after how many seeds it is found")
	flag.IntVar(&o.most, "failures", 10, "stop after so many failures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := simulate(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
	}
	if !ok || err != nil {
		stop()
		os.Exit(1)
	}
}

// simulate runs the seeds; false says that it did not find what was expected.
func simulate(ctx context.Context, o options) (bool, error) {
	runner, err := open(ctx, o)
	if err != nil {
		return false, err
	}
	defer runner.Close() //nolint:errcheck // a temporary directory
	if o.log {
		r, err := runner.Run(ctx, o.seed, []string{"log"}, planted(o.plant), os.Stdout)
		if err != nil {
			return false, err
		}
		return r.Report.Failure == "", nil
	}
	if o.plant != "" {
		found := true
		for _, bug := range strings.Split(o.plant, ",") {
			found = hunt(ctx, runner, o, bug) && found
		}
		return found, ctx.Err()
	}
	return sweep(ctx, runner, o)
}

func planted(bug string) []string {
	if bug == "" {
		return nil
	}
	return []string{"TENURE_PLANT=" + bug}
}

// hunt runs seeds with a planted bug until one fails.
func hunt(ctx context.Context, runner *host.Runner, o options, bug string) (found bool) {
	done, began := 0, time.Now()
	err := runner.RunAll(ctx, o.seed, o.n, o.jobs, nil, planted(bug), func(r host.Result, err error) bool {
		done++
		if err == nil && r.Report.Failure == "" {
			return true
		}
		found = true
		what, _, _ := strings.Cut(strings.TrimSpace(fmt.Sprint(r.Report.Failure, complaint(err))), "\n\n")
		fmt.Printf("%s: found in %d seeds, %v: seed %d: %s\n", bug, done, time.Since(began).Round(time.Second), r.Seed, what[:min(len(what), 300)])
		return false
	})
	if !found {
		fmt.Printf("%s: NOT found in %d seeds, %v %v\n", bug, done, time.Since(began).Round(time.Second), complaint(err))
	}
	return found
}

// sweep runs seeds, none of which should fail.
func sweep(ctx context.Context, runner *host.Runner, o options) (bool, error) {
	sum := map[string]int64{}
	began, last := time.Now(), time.Now()
	done, failed := uint64(0), 0
	var virtual, real time.Duration
	err := runner.RunAll(ctx, o.seed, o.n, o.jobs, nil, nil, func(r host.Result, err error) bool {
		done++
		virtual, real = virtual+r.Report.Virtual, real+r.Real
		for name, n := range r.Report.Figures {
			sum[name] += n
		}
		if err != nil || r.Report.Failure != "" {
			failed++
			fmt.Printf("seed %d: %s%v\n", r.Seed, r.Report.Failure, complaint(err))
		}
		if time.Since(last) > 10*time.Second {
			last = time.Now()
			fmt.Printf("%d of %d seeds in %v, %d failed\n", done, o.n, time.Since(began).Round(time.Second), failed)
		}
		return failed < o.most
	})
	fmt.Printf("%d seeds in %v (%v each; %v of virtual time), %d failed\n", done, time.Since(began).Round(time.Second), (real / time.Duration(max(done, 1))).Round(time.Millisecond), virtual.Round(time.Second), failed)
	for _, name := range slices.Sorted(maps.Keys(sum)) {
		fmt.Printf("%12d %s\n", sum[name], name)
	}
	return failed == 0, err
}

func complaint(err error) any {
	if err == nil {
		return ""
	}
	return err
}

// open builds the simulation.
func open(ctx context.Context, o options) (*host.Runner, error) {
	tags := []string{"fewslots"}
	if o.plant != "" {
		tags = append(tags, "plant")
	}
	return host.Build(ctx, ".", "./internal/sim/guest", tags...)
}
