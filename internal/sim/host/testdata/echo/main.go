// Program echo is for the tests of the host: it prints what differs from run to
// run in a common Go program, or misbehaves as its argument says.
package main

import (
	crand "crypto/rand"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/tenure-faas/tenure/internal/sim/host/inside"
)

func main() {
	inside.Main(func(_ uint64, args []string, out io.Writer) (string, map[string]int64) {
		mode := "fine"
		if len(args) > 0 {
			mode = args[0]
		}
		fmt.Fprintln(out, "mode", mode, os.Getenv("TENURE_PLANT"))
		switch mode {
		case "sleep for ever":
			for {
				time.Sleep(time.Second)
			}
		case "loop":
			for { //nolint:revive // that is the point
			}
		case "deadlock":
			var mu sync.Mutex
			mu.Lock()
			mu.Lock()
		case "panic":
			panic("out of order")
		case "exit":
			os.Exit(3)
		case "silent":
			os.Exit(0)
		case "failure":
			return "a bad thing", nil
		}
		fine(out)
		return "", map[string]int64{"calls": 7}
	})
}

// fine prints what is left to chance, to the clock and to the scheduler.
func fine(out io.Writer) {
	bytes := make([]byte, 8)
	_, _ = crand.Read(bytes) // it never fails: documented
	fmt.Fprintln(out, time.Now(), rand.Uint64(), bytes)
	m := map[*int]int{}
	for i := range 100 {
		m[new(int)] = i
	}
	for _, i := range m {
		fmt.Fprint(out, i, " ")
	}
	a, b := make(chan int, 100), make(chan int, 100)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
			for range 10000 {
				m := map[int]int{i: i}
				_ = m
			}
			a <- i
			b <- -i
		})
	}
	for range 200 {
		select {
		case v := <-a:
			fmt.Fprint(out, v, " ")
		case v := <-b:
			fmt.Fprint(out, v, " ")
		}
	}
	wg.Wait()
	start := time.Now()
	time.Sleep(time.Hour / 60)
	fmt.Fprintln(out, time.Since(start))
}
