package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// listen serves the rig with the real server configuration and returns its
// address.
func (r *rig) listen(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewHTTPServer(r.opt, r.Handler())
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
		http.DefaultClient.CloseIdleConnections()
	})
	return listener.Addr().String()
}

// counter counts what a client sends of an endless body.
type counter struct {
	left int64
	sent atomic.Int64 // the client may go on sending while the test looks
}

func (c *counter) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), c.left)
	c.left -= n
	c.sent.Add(n)
	return int(n), nil
}

// TestHugeBodies sends 100 MB where less is allowed: the answer is 413, comes
// before everything was sent, and the server still serves.
func TestHugeBodies(t *testing.T) {
	r := newRig(t, Options{})
	address := r.listen(t)
	for _, row := range []struct {
		method, path string
		chunked      bool
	}{
		{"POST", "/v1/workflows/transfer/invoke", false},
		{"POST", "/v1/workflows/transfer/invoke", true},
		{"POST", "/v1/txn", false},
		{"PUT", "/v1/functions/f", false},
		{"PUT", "/v1/functions/f", true},
		{"PUT", "/v1/state/t/k", true},
		{"PUT", "/v1/workflows/w", false},
		{"POST", "/v1/state", true}, // one endless line
	} {
		const size = 100 << 20
		body := &counter{left: size}
		req, err := http.NewRequest(row.method, "http://"+address+row.path, body)
		if err != nil {
			t.Fatal(err)
		}
		if !row.chunked {
			req.ContentLength = size
		}
		w, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Errorf("%s %s chunked=%t: %v after %d bytes", row.method, row.path, row.chunked, err, body.sent.Load())
			continue
		}
		text, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if p := problem(t, w.Header, w.StatusCode, text); w.StatusCode != 413 || p.Type != problemBase+"too-large" {
			t.Errorf("%s %s: %s", row.method, row.path, text)
		}
		if body.sent.Load() == size {
			t.Errorf("%s %s: the server took all of the body", row.method, row.path)
		}
	}
	w, err := http.Get("http://" + address + "/healthz")
	if err != nil || w.StatusCode != 200 {
		t.Fatalf("afterwards: %v, %v", w, err)
	}
	if err := w.Body.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAnswerBeforeBody has clients that say they will send too much and send
// nothing: the answer does not wait for the body.
func TestAnswerBeforeBody(t *testing.T) {
	r := newRig(t, Options{})
	address := r.listen(t)
	for _, extra := range []string{"", "Expect: 100-continue\r\n"} {
		status, _ := raw(t, address, "POST /v1/txn HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n"+extra+"\r\n")
		if status != 413 {
			t.Errorf("%q: status %d", extra, status)
		}
	}
	// A client that sends all of a body before it reads can do so, because
	// the server goes on reading for a while.
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "PUT /v1/state/t/k HTTP/1.1\r\nHost: h\r\nContent-Length: 24000000\r\n\r\n"+strings.Repeat("x", 24_000_000)); err != nil {
		t.Errorf("24 MB: %v", err)
	}
	if w, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || w.StatusCode != 413 {
		t.Errorf("24 MB: %v, %v", w, err)
	}
}

// raw sends text on a connection of its own and returns the answer's status
// and body.
func raw(t *testing.T, address, text string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// The server may answer and close before it read everything.
	_, writeErr := io.WriteString(conn, text)
	w, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%v (write: %v)", err, writeErr)
	}
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.StatusCode, string(body)
}

// TestHostileConnections has clients that never finish their header, send
// too much of it, or break off.
func TestHostileConnections(t *testing.T) {
	address := newRig(t, Options{}).listen(t)
	if status, _ := raw(t, address, "GET /healthz HTTP/1.1\r\nHost: h\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n"); status != 431 {
		t.Errorf("huge header: status %d", status)
	}
	if status, body := raw(t, address, "POST /v1/state HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"); status != 400 || !strings.Contains(body, "line 1: the body is incomplete") {
		t.Errorf("bad chunk: status %d, %s", status, body)
	}
	if status, body := raw(t, address, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"); status != 404 || !strings.Contains(body, problemBase) {
		t.Errorf("OPTIONS *: status %d, %s", status, body)
	}
	address = newRig(t, Options{ReadTimeout: time.Second}).listen(t)
	if status, body := raw(t, address, "POST /v1/txn HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n{"); status != 400 || !strings.Contains(body, "did not arrive in time") {
		t.Errorf("slow body: status %d, %s", status, body)
	}
	address = newRig(t, Options{ReadHeaderTimeout: 50 * time.Millisecond}).listen(t)
	slow, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	if err := slow.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(slow, "GET /healthz HTTP/1.1\r\nHos"); err != nil {
		t.Fatal(err)
	}
	// The server ends the connection, with or without an answer.
	if _, err := io.Copy(io.Discard, slow); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server waits for a header for ever")
	}
}

// deadlines is a ResponseWriter that counts how often its deadlines move.
type deadlines struct {
	*httptest.ResponseRecorder
	reads, writes []time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	d.reads = append(d.reads, at)
	return nil
}

func (d *deadlines) SetWriteDeadline(at time.Time) error {
	d.writes = append(d.writes, at)
	return nil
}

// TestLongLoadOutlivesReadTimeout checks that in a bulk load every
// transaction that got through earns the next one its time.
func TestLongLoadOutlivesReadTimeout(t *testing.T) {
	r := newRig(t, Options{LoadLines: 1})
	body := strings.Repeat(`{"table":"t","key":"k","value":1}`+"\n", 3)
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	start := time.Now()
	r.ServeHTTP(w, httptest.NewRequest("POST", "/v1/state", strings.NewReader(body)))
	if w.Code != 200 || len(w.reads) != 3 || len(w.writes) != 3 {
		t.Fatalf("status %d, read deadlines %v, write deadlines %v", w.Code, w.reads, w.writes)
	}
	for i := range w.reads {
		if w.reads[i].Before(start.Add(r.opt.ReadTimeout)) || w.writes[i].Before(start.Add(r.opt.WriteTimeout)) {
			t.Errorf("deadlines %v and %v, start %v", w.reads[i], w.writes[i], start)
		}
	}
}
