package workflow

import clock "time"

func bad() { clock.Sleep(clock.Second) } // want time.Sleep

type time struct{ Now int }

func good(t time) int { return t.Now }
