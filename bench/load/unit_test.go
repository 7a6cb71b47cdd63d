package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestScheduleDropsTheNewest(t *testing.T) {
	s := newSchedule(&Options{Rate: 10, Duration: 10 * time.Second, Queue: 2, Timeout: time.Second})
	steps := []struct {
		now, due time.Duration
		dropped  uint64
	}{
		{0, 0, 0},
		{0, 100 * time.Millisecond, 0}, // nothing is late: the next one
		{550 * time.Millisecond, 200 * time.Millisecond, 2},    // 2 3 | 4 5 are due
		{560 * time.Millisecond, 300 * time.Millisecond, 2},    //
		{560 * time.Millisecond, 600 * time.Millisecond, 2},    // on time again
		{10 * time.Second, 700 * time.Millisecond, 93},         // 7 8 wait, all others are lost
		{10500 * time.Millisecond, 800 * time.Millisecond, 93}, // late ones are sent after the end
	}
	for i, step := range steps {
		due, ok := s.take(step.now)
		if !ok || due != step.due || s.dropped != step.dropped {
			t.Fatalf("step %d: due %v, ok %t, dropped %d; want %v, true, %d", i, due, ok, s.dropped, step.due, step.dropped)
		}
	}
	if due, ok := s.take(10600 * time.Millisecond); ok {
		t.Errorf("an arrival at %v after all 100", due)
	}
}

func TestScheduleGivesUpAndCountsOnlyTheWindow(t *testing.T) {
	s := newSchedule(&Options{Rate: 10, Warmup: time.Second, Duration: time.Second, Queue: 100, Timeout: time.Second})
	if due, ok := s.take(2500 * time.Millisecond); !ok || due != 0 {
		t.Fatalf("late arrival: %v, %t; want the first", due, ok)
	}
	if due, ok := s.take(3 * time.Second); ok {
		t.Fatalf("arrival %v was handed out after the time to give up", due)
	}
	if n := s.settle(); n != 10 {
		t.Errorf("%d dropped, want the 10 inside the window and none of the warm-up", n)
	}
}

func TestBodiesAreWhatTheServerExpects(t *testing.T) {
	for _, name := range Workloads() {
		for _, theta := range []float64{0, 0.99, 12} {
			o := Options{Workload: name, Accounts: 3, Theta: theta}
			o.EnsureDefaults()
			workers, err := newWorkers(&o, closedLoop{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 200 {
				w := workers[0]
				w.render()
				r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(w.request)))
				if err != nil {
					t.Fatalf("%s: request %q: %v", name, w.request, err)
				}
				body, err := io.ReadAll(r.Body)
				if err != nil || r.ContentLength != int64(len(body)) || r.URL.Path != workloads[name].path {
					t.Fatalf("%s: path %s, length %d, body %q, error %v", name, r.URL.Path, r.ContentLength, body, err)
				}
				if !json.Valid(body) {
					t.Fatalf("%s: body %q is not JSON", name, body)
				}
				if name == "bank" {
					checkTransfer(t, body)
				}
			}
		}
	}
}

func checkTransfer(t *testing.T, body []byte) {
	t.Helper()
	var in struct {
		From, To string
		Amount   int
	}
	if err := json.Unmarshal(body, &in); err != nil {
		t.Fatal(err)
	}
	if in.From == in.To || in.Amount < 1 || in.Amount > 9 || len(in.From) != 8 || len(in.To) != 8 {
		t.Fatalf("transfer %s", body)
	}
}

func TestSeedRepeatsAndWorkersDiffer(t *testing.T) {
	bodies := func(seed uint64, worker int) string {
		o := Options{Seed: seed, Accounts: 1000}
		d := newDraw(&o, nil, worker)
		var b []byte
		for range 20 {
			b = appendTransfer(b, d)
		}
		return string(b)
	}
	if bodies(1, 2) != bodies(1, 2) {
		t.Error("one seed and worker gave two sequences")
	}
	if bodies(1, 2) == bodies(1, 3) || bodies(1, 2) == bodies(2, 2) {
		t.Error("different seeds or workers gave one sequence")
	}
}

func TestKeysOfTwoRunsDiffer(t *testing.T) {
	o := Options{Idempotency: true, Connections: 3, Seed: 5}
	o.EnsureDefaults()
	seen := map[string]bool{}
	for range 2 {
		workers, err := newWorkers(&o, closedLoop{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range workers {
			if seen[string(w.key)] {
				t.Errorf("idempotency keys %q... are used twice", w.key)
			}
			seen[string(w.key)] = true
		}
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	o := Options{
		Server: "ftp://x", Token: "a\r\nb", Workload: "nope", Accounts: 1, Theta: -1, Duration: -1, Warmup: -1,
		Connections: 20_000, Rate: -1, Queue: -1, Timeout: -1,
	}
	o.EnsureDefaults()
	err := o.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, word := range []string{"server", "token", "workload", "accounts", "theta", "duration", "warmup", "connections", "rate", "queue", "timeout"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the fault of %s is not named: %v", word, err)
		}
	}
	var zero Options
	zero.EnsureDefaults()
	if err := zero.Validate(); err != nil {
		t.Errorf("defaults are refused: %v", err)
	}
}

func TestAgainstARealServer(t *testing.T) {
	var token, path atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		drain(r)
		token.Store(r.Header.Get("Authorization"))
		path.Store(r.URL.Path)
		_, _ = io.WriteString(w, strings.Repeat("x", 3*maxAnswer)) // chunked and longer than what is kept
	}))
	defer server.Close()
	r, err := Run(t.Context(), Options{Server: server.URL + "/base/", Token: "secret", Connections: 4, Duration: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r.OK == 0 || r.Failed != 0 || path.Load() != "/base/v1/workflows/transfer/invoke" || token.Load() != "Bearer secret" {
		t.Errorf("ok %d, failed %d %v, path %v, token %v", r.OK, r.Failed, r.Errors, path.Load(), token.Load())
	}
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{`"throughput":`, `"latency_us":{"mean":`, `"p99":`, `"statuses":{"200":`, `"problems":{}`, `"dropped":0`, `"client":{"cpu_seconds":`, `"gomaxprocs":`, `"connections":4`} {
		if !bytes.Contains(out, []byte(field)) {
			t.Errorf("result has no %s: %s", field, out)
		}
	}
	if bytes.Contains(out, []byte("secret")) {
		t.Error("the result contains the token")
	}
	if table := r.Table(); !strings.Contains(table, "throughput") || !strings.Contains(table, "200 OK") {
		t.Errorf("table:\n%s", table)
	}
}

func TestUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	if _, err := Run(t.Context(), Options{Server: server.URL}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Run: %v, want ErrUnreachable", err)
	}
	if err := Preload(t.Context(), PreloadOptions{Server: server.URL}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Preload: %v, want ErrUnreachable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{Server: server.URL}); !errors.Is(err, ErrInterrupted) {
		t.Errorf("Run after the end of ctx: %v, want ErrInterrupted", err)
	}
}

func TestPreloadLoadsEveryAccountOnce(t *testing.T) {
	keys := map[string]bool{}
	lie := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		loaded := 0
		for lines := bufio.NewScanner(r.Body); lines.Scan(); loaded++ {
			var row struct {
				Table, Key string
				Value      int64
			}
			if err := json.Unmarshal(lines.Bytes(), &row); err != nil || row.Table != "accounts" || row.Value != 500 || keys[row.Key] {
				t.Errorf("line %q: %v", lines.Bytes(), err)
			}
			keys[row.Key] = true
		}
		_, _ = fmt.Fprintf(w, `{"loaded":%d}`, loaded-lie)
	}))
	defer server.Close()
	o := PreloadOptions{Server: server.URL, Accounts: chunkRows + 10, Balance: 500}
	steps := 0
	o.Progress = func(loaded, total int) { steps++ }
	if err := Preload(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if len(keys) != chunkRows+10 || steps != 2 {
		t.Errorf("%d accounts in %d steps, want %d in 2", len(keys), steps, chunkRows+10)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	if name := string(appendName(nil, 'a', rng.IntN(o.Accounts))); !keys[name] {
		t.Errorf("account %s, which requests draw, was not loaded", name)
	}
	lie, keys = 1, map[string]bool{}
	if err := Preload(t.Context(), o); err == nil || !strings.Contains(err.Error(), "49999 of 50000") {
		t.Errorf("a lost line was not noticed: %v", err)
	}
}
