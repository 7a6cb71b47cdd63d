package worker

import (
	_ "sync"
	"time"
)

var started = time.Now() // a shell lives in time
