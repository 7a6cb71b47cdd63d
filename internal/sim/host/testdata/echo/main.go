// Program echo is a guest for the tests of the host: it prints what differs from
// run to run in a common Go program, or misbehaves as its second argument says.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	seed, err := strconv.ParseUint(os.Args[1], 10, 64)
	if err != nil {
		panic(err)
	}
	mode := "fine"
	if len(os.Args) > 2 {
		mode = os.Args[2]
	}
	fmt.Println("mode", mode, os.Getenv("TENURE_PLANT"))
	switch mode {
	case "spin":
		for {
			time.Sleep(time.Second)
		}
	case "read the clock":
		for start := time.Now(); time.Since(start) < time.Hour; {
		}
	case "print":
		for {
			fmt.Println("again")
		}
	case "deadlock":
		<-make(chan int)
	case "panic":
		panic("out of order")
	case "exit":
		os.Exit(3)
	case "silent":
		return
	case "hoard":
		var all [][]byte
		for {
			all = append(all, make([]byte, 64<<20))
			all[len(all)-1][0] = 1
		}
	}
	fine()
	failure := ""
	if mode == "failure" {
		failure = "a bad thing"
	}
	last, err := json.Marshal(map[string]any{"seed": seed, "hash": "00ff", "failure": failure, "figures": map[string]float64{"calls": 7}})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(last))
}

// fine prints what is left to chance, to the clock and to the scheduler.
func fine() {
	fmt.Println(time.Now(), rand.Uint64())
	m := map[int]bool{}
	for i := range 100 {
		m[i] = true
	}
	for k := range m {
		fmt.Print(k, " ")
	}
	a, b := make(chan int, 100), make(chan int, 100)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
			a <- i
			b <- -i
		}()
	}
	for range 200 {
		select {
		case v := <-a:
			fmt.Print(v, " ")
		case v := <-b:
			fmt.Print(v, " ")
		}
	}
	wg.Wait()
	start := time.Now()
	time.Sleep(time.Hour / 60)
	fmt.Println(time.Since(start))
}
