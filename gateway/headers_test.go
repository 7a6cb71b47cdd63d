package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

// TestInvocationHeaders shows what the headers of an invocation become in the
// request, and which are refused.
func TestInvocationHeaders(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for _, row := range []struct {
		header  string
		word    string
		timeout time.Duration
		key     string
		trace   string
	}{
		{"X: y", "", 30 * time.Second, "", ""},
		{"Tenure-Timeout: 750ms", "", 750 * time.Millisecond, "", ""},
		{"Tenure-Timeout: 10m", "", 10 * time.Minute, "", ""},
		{"Tenure-Timeout: 10m1ns", "invalid-timeout", 0, "", ""},
		{"Tenure-Timeout: 0s", "invalid-timeout", 0, "", ""},
		{"Tenure-Timeout: -1s", "invalid-timeout", 0, "", ""},
		{"Tenure-Timeout: 5", "invalid-timeout", 0, "", ""},
		{"Tenure-Timeout: 99999999999h", "invalid-timeout", 0, "", ""},
		{"Tenure-Timeout: " + strings.Repeat("9", 5000), "invalid-timeout", 0, "", ""},
		{"Idempotency-Key: a b~!", "", 30 * time.Second, "a b~!", ""},
		{"Idempotency-Key: " + strings.Repeat("k", 256), "", 30 * time.Second, strings.Repeat("k", 256), ""},
		{"Idempotency-Key: " + strings.Repeat("k", 257), "invalid-idempotency-key", 0, "", ""},
		{"Idempotency-Key: ", "invalid-idempotency-key", 0, "", ""},
		{"Idempotency-Key: \xc3\xa9", "invalid-idempotency-key", 0, "", ""},
		{"Idempotency-Key: a\tb", "invalid-idempotency-key", 0, "", ""},
		{"Traceparent: 00-" + trace + "-b7ad6b7169203331-01", "", 30 * time.Second, "", trace},
		{"Traceparent: cc-" + trace + "-b7ad6b7169203331-01-later", "", 30 * time.Second, "", trace},
		{"Traceparent: 00-" + trace + "-b7ad6b7169203331-01-later", "", 30 * time.Second, "", ""},
		{"Traceparent: ff-" + trace + "-b7ad6b7169203331-01", "", 30 * time.Second, "", ""},
		{"Traceparent: 00-" + strings.ToUpper(trace) + "-b7ad6b7169203331-01", "", 30 * time.Second, "", ""},
		{"Traceparent: 00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01", "", 30 * time.Second, "", ""},
		{"Traceparent: 00-" + trace + "-0000000000000000-01", "", 30 * time.Second, "", ""},
		{"Traceparent: hello", "", 30 * time.Second, "", ""},
	} {
		for _, call := range [][3]string{
			{"POST", "/v1/workflows/transfer/invoke", "{}"}, {"POST", "/v1/txn", `{"ops":[{"op":"get","table":"t","key":"k"}]}`}, {"PUT", "/v1/state/t/k", ""},
		} {
			r := newRig(t, Options{})
			start := time.Now()
			w := r.do(call[0], call[1], call[2], row.header)
			if got := word(t, w); got != row.word {
				t.Errorf("%s %.60q: [%s], want [%s]", call[1], row.header, got, row.word)
			}
			if row.word != "" {
				continue
			}
			req := &r.executor.last
			if req.Deadline.Before(start.Add(row.timeout)) || req.Deadline.After(time.Now().Add(row.timeout)) {
				t.Errorf("%s %q: the deadline is %v after the start", call[1], row.header, req.Deadline.Sub(start))
			}
			if req.IdempotencyKey != row.key || req.Trace != row.trace || (req.Digest != [32]byte{}) != (row.key != "") {
				t.Errorf("%s %q: request %+v", call[1], row.header, req)
			}
		}
	}
	for _, name := range []string{"Tenure-Timeout", "Idempotency-Key", "If-Match"} {
		if w := newRig(t, Options{}).do("PUT", "/v1/state/t/k", "", name+": 1s", name+": 1s"); w.Code != 400 {
			t.Errorf("two %s: status %d", name, w.Code)
		}
	}
	r := newRig(t, Options{})
	r.catalogue.timeout = 5 * time.Second
	start := time.Now()
	r.do("POST", "/v1/workflows/transfer/invoke", "{}")
	if after := r.executor.last.Deadline.Sub(start); after < 5*time.Second || after > 20*time.Second {
		t.Errorf("the workflow's time-out became %v", after)
	}
}

// TestConditions shows what the conditional headers become.
func TestConditions(t *testing.T) {
	for _, row := range []struct {
		match, noneMatch string // "-": not sent
		want             string
	}{
		{"-", "-", "none"}, {"*", "-", "present"}, {"-", "*", "absent"}, {`"7"`, "-", "7"}, {`"18446744073709551615"`, "-", "18446744073709551615"},
		{"*", "*", "refused"}, {`"7"`, "*", "refused"}, {"-", `"7"`, "refused"}, {"7", "-", "refused"}, {`W/"7"`, "-", "refused"},
		{`"7", "8"`, "-", "refused"}, {`"x"`, "-", "refused"}, {`""`, "-", "refused"}, {`"`, "-", "refused"}, {"", "-", "refused"}, {"-", "", "refused"},
		{`"07"`, "-", "refused"}, {`"-1"`, "-", "refused"}, {`"18446744073709551616"`, "-", "refused"},
	} {
		h := http.Header{}
		if row.match != "-" {
			h.Set("If-Match", row.match)
		}
		if row.noneMatch != "-" {
			h.Set("If-None-Match", row.noneMatch)
		}
		var op worker.Op
		got := "none"
		switch err := conditions(h, &op); {
		case err != nil:
			got = "refused"
		case op.IfAbsent && !op.IfPresent && op.IfMatch == nil:
			got = "absent"
		case op.IfPresent && op.IfMatch == nil:
			got = "present"
		case op.IfMatch != nil:
			got = strings.Trim(base.FormatETag(*op.IfMatch), `"`)
		}
		if got != row.want {
			t.Errorf("If-Match %s, If-None-Match %s: %s, want %s", row.match, row.noneMatch, got, row.want)
		}
	}
}

// TestDigest checks that each part of a request that matters changes the
// digest, also where the parts run together to the same bytes.
func TestDigest(t *testing.T) {
	request := func(method, path, match, body string) [32]byte {
		req, err := http.NewRequest(method, "http://h"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if match != "" {
			req.Header.Set("If-Match", match)
		}
		return digest(req, []byte(body))
	}
	seen := map[[32]byte]string{}
	for _, p := range [][4]string{
		{"PUT", "/v1/state/t/k", "", "x"}, {"PUT", "/v1/state/t/k", "", "y"}, {"PUT", "/v1/state/t/k", "x", ""},
		{"DELETE", "/v1/state/t/k", "", "x"}, {"PUT", "/v1/state/t/kx", "", ""}, {"PUT", "/v1/state/t/k", `"1"`, "x"},
	} {
		sum := request(p[0], p[1], p[2], p[3])
		if other, ok := seen[sum]; ok {
			t.Errorf("%q and %s have one digest", p, other)
		}
		seen[sum] = strings.Join(p[:], " ")
	}
	if request("PUT", "/v1/state/t/%6b", "", "x") != request("PUT", "/v1/state/t/k", "", "x") {
		t.Error("two spellings of one path have two digests")
	}
}
