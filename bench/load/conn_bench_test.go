package load

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// BenchmarkClient is the reason for conn: one request and answer by it and by
// http.Transport, against one server in this process. The server's share is the
// same in both, so that the difference is the clients'.
func BenchmarkClient(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		drain(r)
		_, _ = io.WriteString(w, "{}")
	}))
	defer server.Close()
	target, err := url.Parse(server.URL)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("conn", func(b *testing.B) {
		o := Options{Server: server.URL}
		o.EnsureDefaults()
		workers, err := newWorkers(&o, closedLoop{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		w := workers[0]
		defer w.conn.close()
		b.ReportAllocs()
		before := processCPU()
		for b.Loop() {
			w.render()
			if _, err := w.conn.send(b.Context(), w.request, time.Now().Add(time.Minute)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((processCPU()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
	b.Run("transport", func(b *testing.B) {
		transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1}
		defer transport.CloseIdleConnections()
		body, answer := []byte(`{"from":"a0000001","to":"a0000002","amount":3}`), make([]byte, 4<<10)
		b.ReportAllocs()
		before := processCPU()
		for b.Loop() {
			r := &http.Request{
				Method: http.MethodPost, URL: target, Host: target.Host, ContentLength: int64(len(body)),
				Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)),
			}
			response, err := transport.RoundTrip(r)
			if err != nil {
				b.Fatal(err)
			}
			for err == nil {
				_, err = response.Body.Read(answer)
			}
			_ = response.Body.Close()
		}
		b.ReportMetric(float64((processCPU()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
}

// BenchmarkRender is what a worker does for a request beside the network.
func BenchmarkRender(b *testing.B) {
	o := Options{Theta: 0.99, Idempotency: true}
	o.EnsureDefaults()
	workers, err := newWorkers(&o, closedLoop{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		workers[0].render()
	}
}
