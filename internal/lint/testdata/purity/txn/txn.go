package txn

import (
	_ "math/rand/v2" // want must not import math/rand/v2
	_ "net/http"     // want must not import net/http
	_ "os"           // want must not import os
	_ "sync/atomic"  // want must not import sync/atomic
	"time"
)

func age(now, then time.Time) time.Duration { return now.Sub(then) }

func bad() time.Duration {
	start := time.Now()      // want time.Now
	return time.Since(start) // want time.Since
}

var later = time.After // want time.After
