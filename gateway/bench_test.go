package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

// nullWriter is a ResponseWriter that costs nothing of its own.
type nullWriter struct{ header http.Header }

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(int)             {}

// body is a request's body that can be read again.
type body struct{ strings.Reader }

func (*body) Close() error { return nil }

// benchmark sends one request again and again.
func benchmark(b *testing.B, handler http.Handler, method, target, text string, header ...string) {
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	reader := &body{}
	req.Body, req.ContentLength = reader, int64(len(text))
	w := &nullWriter{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(text)
		clear(w.header)
		handler.ServeHTTP(w, req)
	}
}

const transferInput = `{"from":"account-000017","to":"account-004242","amount":12}`

// BenchmarkBareMux is the floor: net/http's mux and a handler that reads the
// body and writes as many bytes as an invocation does.
func BenchmarkBareMux(b *testing.B) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/workflows/{name}/invoke", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") == "" {
			b.Fatal("no name")
		}
		text, err := io.ReadAll(r.Body)
		if err != nil {
			b.Fatal(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	})
	benchmark(b, mux, "POST", invokePath, transferInput)
}

// fixed is a rig whose executor answers at once.
func fixed(b *testing.B, opt Options) *rig {
	r := newRig(b, opt)
	output := []byte(`{"balance":88}`)
	results := []worker.OpResult{{Value: output, Found: true, Version: 7}}
	r.Gateway.executor = &nullExecutor{fakeExecutor: r.executor, output: output, results: results}
	return r
}

// nullExecutor answers every invocation with the same reply.
type nullExecutor struct {
	*fakeExecutor
	output  []byte
	results []worker.OpResult
}

func (e *nullExecutor) Execute(_ context.Context, req *worker.Request) worker.Reply {
	if req.ID == (base.InvocationID{}) {
		panic("no id")
	}
	return worker.Reply{ID: req.ID, Output: e.output, Results: e.results, Attempts: 1}
}

func BenchmarkInvoke(b *testing.B) {
	benchmark(b, fixed(b, Options{}), "POST", invokePath, transferInput)
}

func BenchmarkInvokeIdempotentWithToken(b *testing.B) {
	benchmark(b, fixed(b, Options{Token: "secret"}), "POST", invokePath, transferInput, "Idempotency-Key", "k-17", "Authorization", "Bearer secret")
}

func BenchmarkTxn(b *testing.B) {
	benchmark(b, fixed(b, Options{}), "POST", "/v1/txn",
		`{"ops":[{"op":"get","table":"t","key":"a"},{"op":"put","table":"t","key":"b","value":"x"},{"op":"add","table":"t","key":"c","value":1}]}`)
}

func BenchmarkGetState(b *testing.B) {
	benchmark(b, fixed(b, Options{}), "GET", "/v1/state/accounts/account-000017", "")
}

func BenchmarkPutState(b *testing.B) {
	benchmark(b, fixed(b, Options{}), "PUT", "/v1/state/accounts/account-000017", "100")
}

// BenchmarkLoad is per line.
func BenchmarkLoad(b *testing.B) {
	r := newRig(b, Options{})
	r.executor.values, r.executor.version = map[base.Key][]byte{}, map[base.Key]base.Version{}
	line := `{"table":"accounts","key":"account-000017","value":"100"}` + "\n"
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	w := &nullWriter{header: http.Header{}}
	req, err := http.NewRequest("POST", "/v1/state", io.NopCloser(&repeat{text: line, times: b.N}))
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	r.ServeHTTP(w, req)
}

// repeat reads a text many times.
type repeat struct {
	text  string
	at    int
	times int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && r.times > 0 {
		m := copy(p[n:], r.text[r.at:])
		n, r.at = n+m, r.at+m
		if r.at == len(r.text) {
			r.at, r.times = 0, r.times-1
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
