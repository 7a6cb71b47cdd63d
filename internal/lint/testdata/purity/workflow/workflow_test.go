package workflow

import (
	_ "os"
	"time"
)

var started = time.Now()
