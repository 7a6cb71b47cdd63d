package p

import "sync"

func owned(wg *sync.WaitGroup) { wg.Go(func() {}) }

func bare() {
	go func() { // want bare go statement
		go bare() // want bare go statement
	}()
}
