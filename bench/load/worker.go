package load

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/tidwall/gjson"
)

const (
	// maxTries bounds how often a request with an idempotency key is sent.
	maxTries = 9
	// firstPause is the wait after a connection that could not be opened, so
	// that a dead server does not turn the workers into a busy loop. It doubles
	// with each repetition of a request.
	firstPause = 20 * time.Millisecond
	// maxProblemKinds bounds the table of problem types, which the server fills.
	maxProblemKinds = 64
)

// Latencies are recorded in nanoseconds with three digits. The highest one is
// far over any timeout that makes sense; longer ones are counted as that.
const (
	lowestLatency  = int64(time.Microsecond)
	highestLatency = int64(10 * time.Minute)
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(lowestLatency, highestLatency, 3)
}

// tally is what one worker counted. Everything but sent is of the measured
// window.
type tally struct {
	latency  *hdrhistogram.Histogram // of answers with a 2xx status
	sent     uint64                  // requests with an end, warm-up included
	ok       uint64
	failed   uint64
	retries  uint64
	replayed uint64
	statuses [600]uint64
	problems map[string]uint64
	errors   map[string]uint64
	last     time.Duration // when the last request ended
}

// worker sends the requests of one connection. It is used by one goroutine.
type worker struct {
	arrivals arrivals
	draw     *draw
	workload workload
	conn     *conn
	start    time.Time
	window   time.Duration // requests that are due before it are not counted
	timeout  time.Duration
	timer    *time.Timer // reused for every wait

	// head is the request up to the Idempotency-Key's or Content-Length's
	// value; request and body are rendered into their own buffers.
	head    []byte
	request []byte
	body    []byte
	// key is the prefix of this worker's idempotency keys, nil for none.
	key []byte

	tally tally
}

// renderHead renders the constant part of every request.
func renderHead(server *url.URL, path, token string, keys bool) []byte {
	var b strings.Builder
	b.WriteString("POST " + strings.TrimSuffix(server.EscapedPath(), "/") + path + " HTTP/1.1\r\n")
	b.WriteString("Host: " + server.Host + "\r\nUser-Agent: tenure-bench\r\nContent-Type: application/json\r\n")
	if token != "" {
		b.WriteString("Authorization: Bearer " + token + "\r\n")
	}
	if keys {
		b.WriteString("Idempotency-Key: ")
	} else {
		b.WriteString("Content-Length: ")
	}
	return []byte(b.String())
}

// keyPrefix makes the idempotency keys of a run its own. The nonce is random
// and not derived from the seed: two runs of one seed would otherwise be
// answered with the first run's results.
func keyPrefix(nonce uint64, worker int) []byte {
	key := hex.AppendEncode(nil, binary.BigEndian.AppendUint64(nil, nonce))
	key = append(key, '-')
	key = strconv.AppendInt(key, int64(worker), 10)
	return append(key, '-')
}

// run sends requests until there are none left or ctx is done.
func (w *worker) run(ctx context.Context) {
	defer w.conn.close()
	for ctx.Err() == nil {
		now := time.Since(w.start)
		due, ok := w.arrivals.take(now)
		if !ok {
			return
		}
		if due > now && !w.wait(ctx, due-now) {
			return
		}
		w.render()
		w.one(ctx, due)
	}
}

// wait blocks for d and returns false if ctx was done before.
func (w *worker) wait(ctx context.Context, d time.Duration) bool {
	w.timer.Reset(d)
	select {
	case <-w.timer.C:
		return true
	case <-ctx.Done():
		w.timer.Stop()
		return false
	}
}

// render puts the next request into w.request.
func (w *worker) render() {
	w.body = w.workload.appendBody(w.body[:0], w.draw)
	r := append(w.request[:0], w.head...)
	if w.key != nil {
		r = append(r, w.key...)
		r = strconv.AppendUint(r, w.tally.sent, 10)
		r = append(r, "\r\nContent-Length: "...)
	}
	r = strconv.AppendInt(r, int64(len(w.body)), 10)
	r = append(r, "\r\n\r\n"...)
	w.request = append(r, w.body...)
}

// one sends the rendered request, repeats it if it may, and counts how it
// ended. A request that an interruption cut off is not counted.
func (w *worker) one(ctx context.Context, due time.Duration) {
	deadline := time.Now().Add(w.timeout)
	tries := 1
	a, err := w.conn.send(ctx, w.request, deadline)
	for pause := firstPause; err != nil; pause *= 2 {
		again := w.key != nil && tries < maxTries && time.Now().Add(pause).Before(deadline)
		if (again || errors.Is(err, errConnect)) && !w.wait(ctx, pause) {
			return
		}
		if !again {
			break
		}
		tries++
		a, err = w.conn.send(ctx, w.request, deadline)
	}
	if err != nil && ctx.Err() != nil {
		return
	}
	w.count(due, time.Since(w.start), a, err, tries)
}

func (w *worker) count(due, end time.Duration, a answer, err error, tries int) {
	t := &w.tally
	t.sent++
	if due < w.window {
		return
	}
	t.last = end
	t.retries += uint64(tries - 1)
	if err != nil {
		t.failed++
		t.errors[errorWord(err)]++
		return
	}
	t.statuses[min(max(a.status, 0), len(t.statuses)-1)]++
	if a.replayed {
		t.replayed++
	}
	if a.status < 200 || a.status > 299 {
		t.failed++
		t.countProblem(a.body)
		return
	}
	t.ok++
	// The value is inside the bounds, so that recording cannot fail.
	_ = t.latency.RecordValue(min(max(int64(end-due), lowestLatency), highestLatency))
}

// countProblem counts the kind of a refusal: the last word of its type.
func (t *tally) countProblem(body []byte) {
	word := gjson.GetBytes(body, "type").String()
	if cut := strings.LastIndexAny(word, "/:#"); cut >= 0 {
		word = word[cut+1:]
	}
	if word == "" {
		word = "no problem type"
	}
	if _, known := t.problems[word]; !known && len(t.problems) >= maxProblemKinds {
		word = "other"
	}
	t.problems[word]++
}

func errorWord(err error) string {
	for _, kind := range []error{errConnect, errTimeout} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return errConnection.Error()
}
