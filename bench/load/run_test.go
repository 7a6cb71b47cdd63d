package load

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// answerAfter answers each request with 200 after d.
func answerAfter(d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		drain(r)
		time.Sleep(d) // simulated work: time in the bubble, none outside
		_, _ = w.Write([]byte("{}"))
	}
}

func mustRun(t *testing.T, o Options, dial dialFunc) *Result {
	t.Helper()
	r, err := run(t.Context(), o, dial)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return r
}

func near(got, want, tolerance float64) bool { return got > want-tolerance && got < want+tolerance }

func TestClosedLoopCountsWhatItSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(answerAfter(10 * time.Millisecond))
		defer stop()
		r := mustRun(t, Options{Connections: 4, Warmup: time.Second, Duration: 2 * time.Second}, dial)
		// 4 connections, 100 requests a second each.
		if r.OK != 800 || r.Sent != 1200 || r.Failed != 0 || r.Statuses["200"] != 800 {
			t.Errorf("ok %d, sent %d, failed %d, statuses %v; want 800, 1200, 0, 800 of 200", r.OK, r.Sent, r.Failed, r.Statuses)
		}
		if !near(r.Throughput, 400, 1) || !near(r.Seconds, 2, 0.01) {
			t.Errorf("throughput %v over %v s, want 400 over 2 s", r.Throughput, r.Seconds)
		}
		if !near(r.Latency.P50, 10_000, 20) || !near(r.Latency.P999, 10_000, 20) {
			t.Errorf("latency %+v, want 10 ms throughout", r.Latency)
		}
	})
}

func TestOpenLoopSendsAtItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(answerAfter(10 * time.Millisecond))
		defer stop()
		r := mustRun(t, Options{Connections: 8, Rate: 100, Warmup: time.Second, Duration: 2 * time.Second}, dial)
		if r.OK != 200 || r.Sent != 300 || r.Dropped != 0 || r.Loop != "open" {
			t.Errorf("ok %d, sent %d, dropped %d, loop %s; want 200, 300, 0, open", r.OK, r.Sent, r.Dropped, r.Loop)
		}
		if !near(r.Latency.P50, 10_000, 20) || !near(r.Latency.Max, 10_000, 20) {
			t.Errorf("latency %+v, want 10 ms throughout", r.Latency)
		}
	})
}

// TestStallIsChargedToEveryRequestThatFellIntoIt stops the server once, for
// half a second of ten. A twentieth of the arrivals fall into the stall, so an
// open loop's p99 must show most of it; a closed loop sees one slow request.
func TestStallIsChargedToEveryRequestThatFellIntoIt(t *testing.T) {
	stallOnce := func() http.HandlerFunc {
		var served atomic.Int64
		return func(w http.ResponseWriter, r *http.Request) {
			drain(r)
			if served.Add(1) == 200 {
				time.Sleep(500 * time.Millisecond)
			}
			time.Sleep(time.Millisecond)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(stallOnce())
		defer stop()
		o := Options{Connections: 1, Rate: 100, Duration: 10 * time.Second}
		r := mustRun(t, o, dial)
		if r.OK != 1000 || r.Dropped != 0 {
			t.Fatalf("ok %d, dropped %d; want 1000 and 0", r.OK, r.Dropped)
		}
		if r.Latency.P99 < 380_000 || r.Latency.P99 > 480_000 {
			t.Errorf("p99 is %.0f µs: of 1,000 arrivals 10 ms apart 50 fell into the stall, the tenth worst waited about 410 ms", r.Latency.P99)
		}
		if !near(r.Latency.P50, 1000, 20) {
			t.Errorf("p50 is %v µs, want 1000: most arrivals met no stall", r.Latency.P50)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(stallOnce())
		defer stop()
		r := mustRun(t, Options{Connections: 1, Duration: 10 * time.Second}, dial)
		if !near(r.Latency.P99, 1000, 20) || r.Latency.Max < 500_000 {
			t.Errorf("closed loop: p99 %v, max %v; want 1 ms and the stall", r.Latency.P99, r.Latency.Max)
		}
	})
}

func TestFullQueueDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(answerAfter(time.Second))
		defer stop()
		r := mustRun(t, Options{Connections: 1, Rate: 10, Queue: 3, Duration: 10 * time.Second}, dial)
		if r.Dropped == 0 || r.OK+r.Dropped != 100 {
			t.Errorf("ok %d and dropped %d are not the 100 arrivals", r.OK, r.Dropped)
		}
		// One a second while arrivals last, then the three that wait.
		if r.OK != 13 && r.OK != 14 {
			t.Errorf("ok %d, want 13 or 14", r.OK)
		}
		if r.Latency.Max > 4_100_000 {
			t.Errorf("an arrival waited %v µs in a queue of three", r.Latency.Max)
		}
		if r.Seconds < 12 {
			t.Errorf("measured %v s: the time of the late answers is missing", r.Seconds)
		}
	})
}

func TestFailuresAreCountedByStatusAndProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served atomic.Int64
		dial, stop := serve(func(w http.ResponseWriter, r *http.Request) {
			drain(r)
			time.Sleep(10 * time.Millisecond)
			switch served.Add(1) % 4 {
			case 0:
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = w.Write([]byte(`{"type":"https://tenure.dev/problems/overloaded","status":429}`))
			case 1:
				w.WriteHeader(http.StatusBadGateway)
				_, _ = w.Write([]byte("<html>"))
			case 2:
				panic(http.ErrAbortHandler) // ends the connection without an answer
			}
		})
		defer stop()
		r := mustRun(t, Options{Connections: 1, Duration: time.Second}, dial)
		if r.Failed != 75 || r.OK != 25 {
			t.Fatalf("failed %d, ok %d; want 75 and 25", r.Failed, r.OK)
		}
		if r.Statuses["429"] != 25 || r.Statuses["502"] != 25 || r.Problems["overloaded"] != 25 ||
			r.Problems["no problem type"] != 25 || r.Errors["connection"] != 25 {
			t.Errorf("statuses %v, problems %v, errors %v; want 25 of each", r.Statuses, r.Problems, r.Errors)
		}
		if r.Retries != 0 {
			t.Errorf("%d repetitions without an idempotency key", r.Retries)
		}
	})
}

func TestTimeoutIsAnErrorOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(func(_ http.ResponseWriter, r *http.Request) {
			drain(r)
			<-r.Context().Done()
		})
		defer stop()
		r := mustRun(t, Options{Connections: 2, Duration: time.Second, Timeout: 100 * time.Millisecond}, dial)
		if r.Errors["timeout"] != 20 || r.Failed != 20 || r.Throughput != 0 {
			t.Errorf("errors %v, failed %d, throughput %v; want 20 timeouts", r.Errors, r.Failed, r.Throughput)
		}
	})
}

func TestIdempotentRequestsAreRepeatedWithTheirKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := map[string]int{}
		dial, stop := serve(func(w http.ResponseWriter, r *http.Request) {
			drain(r)
			time.Sleep(10 * time.Millisecond)
			key := r.Header.Get("Idempotency-Key")
			tries[key]++ // one connection: requests come one after the other
			if tries[key] == 1 {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Tenure-Replayed", "true")
		})
		defer stop()
		r := mustRun(t, Options{Connections: 1, Duration: time.Second, Idempotency: true}, dial)
		if r.Failed != 0 || r.OK == 0 || r.Retries != r.OK || r.Replayed != r.OK {
			t.Errorf("ok %d, failed %d, retries %d, replayed %d; want one repetition each", r.OK, r.Failed, r.Retries, r.Replayed)
		}
		for key, n := range tries {
			if n != 2 || key == "" {
				t.Errorf("key %q was sent %d times, want 2", key, n)
			}
		}
		if uint64(len(tries)) != r.Sent {
			t.Errorf("%d keys for %d requests", len(tries), r.Sent)
		}
	})
}

func TestInterruptionGivesAPartialResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(answerAfter(10 * time.Millisecond))
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), 3005*time.Millisecond)
		defer cancel()
		r, err := run(ctx, Options{Connections: 2, Warmup: time.Second, Duration: time.Hour}, dial)
		if !errors.Is(err, ErrInterrupted) {
			t.Fatalf("error is %v, want ErrInterrupted", err)
		}
		if !r.Interrupted || r.OK != 400 || r.Failed != 0 || !near(r.Throughput, 200, 2) {
			t.Errorf("interrupted %t, ok %d, failed %d, throughput %v; want the 400 requests of two seconds", r.Interrupted, r.OK, r.Failed, r.Throughput)
		}
	})
}

func TestProgressReachesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(answerAfter(10 * time.Millisecond))
		defer stop()
		calls, last := 0, time.Duration(0)
		mustRun(t, Options{Connections: 1, Duration: time.Second, Progress: func(done, total time.Duration) {
			if done < last || total != time.Second {
				t.Errorf("progress %v of %v after %v", done, total, last)
			}
			calls, last = calls+1, done
		}}, dial)
		if calls < 9 || last < 900*time.Millisecond {
			t.Errorf("%d calls up to %v, want about ten up to 1 s", calls, last)
		}
	})
}
