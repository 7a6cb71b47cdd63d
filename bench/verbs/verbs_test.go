package verbs

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/rdmatest"
	"github.com/tenure-faas/tenure/rdma/tcp"
	"github.com/tenure-faas/tenure/rpc"
)

func openTCP(string) (rdma.Provider, error) { return tcp.Open(tcp.Options{}) }

func TestMain(m *testing.M) { rdmatest.Main(m, openTCP) }

// short is a run in which every case runs, and nothing is measured well.
var short = Options{Size: 100, Batch: 300, Duration: 40 * time.Millisecond, Echo: true}

// checkReport: every verb was done, alone and in batches.
func checkReport(t *testing.T, r *Report, echo bool) {
	t.Helper()
	want := []string{"READ", "WRITE", "CAS", "FAA", "WRITE inline", "doorbell and back"}
	if echo {
		want = append([]string{echoName}, want...)
	}
	if len(r.Rows) != len(want) {
		t.Fatalf("%d rows, want %d:\n%s", len(r.Rows), len(want), r)
	}
	for i, row := range r.Rows {
		alone := row.Verb == echoName || row.Verb == "doorbell and back"
		if row.Verb != want[i] || row.P50 <= 0 || row.P99 < row.P50 || row.Rate <= 0 || alone != (row.BatchedRate == 0) {
			t.Errorf("row %d: %+v, want %s", i, row, want[i])
		}
		if !strings.Contains(r.String(), row.Verb) {
			t.Errorf("the table has no %s:\n%s", row.Verb, r)
		}
	}
}

func TestRun(t *testing.T) {
	report, err := Run(t.Context(), openTCP, short)
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, report, true)
}

// TestConnect measures to a server, twice: the second takes the place of the
// first.
func TestConnect(t *testing.T) {
	l, err := rpc.Listen("127.0.0.1:0", rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := Serve(ctx, openTCP, l, short); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	alone := short
	alone.Echo = false
	for range 2 {
		report, err := Connect(t.Context(), openTCP, l.Addr().String(), rpc.Options{}, alone)
		if err != nil {
			t.Fatal(err)
		}
		checkReport(t, report, false)
	}
	tooLarge := alone
	tooLarge.Size = 5000
	if _, err := Connect(t.Context(), openTCP, l.Addr().String(), rpc.Options{}, tooLarge); err == nil || !strings.Contains(err.Error(), "--size 5000") {
		t.Errorf("a region that is too small: %v", err)
	}
}

// TestSilentPeer holds that no wait lasts for ever when the other end is there but
// does not answer, and that the error says so.
func TestSilentPeer(t *testing.T) {
	o := Options{}
	o.EnsureDefaults()
	a, err := newNode(openTCP, "a", o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newNode(openTCP, "b", o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.qp.Accept(a.qp.Address()), a.qp.Connect(t.Context(), b.qp.Address())); err != nil {
		t.Fatal(err)
	}
	cases := casesOf(a, b.region.Remote(), o)
	mute, err := newEcho(o.Size)
	if err != nil {
		t.Fatal(err)
	}
	silent := mute.benchCase()
	one := silent.one
	silent.one = func(ctx context.Context) error {
		mute.buffer = make([]byte, o.Size-1) // too few bytes for an echo
		return one(ctx)
	}
	for _, c := range []*benchCase{cases[len(cases)-1], silent} {
		if c.patience != opTimeout {
			t.Errorf("%s waits %v", c.name, c.patience)
		}
		c.patience = 50 * time.Millisecond
		if err := c.calibrate(t.Context()); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), c.name) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	mute.close()
	if err := errors.Join(a.close(), b.close()); err != nil {
		t.Error(err)
	}
}

// TestAnswerSaysWhyItEnded has the answering end find a doorbell when its queue
// pair is gone.
func TestAnswerSaysWhyItEnded(t *testing.T) {
	o := Options{}
	o.EnsureDefaults()
	a, err := newNode(openTCP, "a", o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newNode(openTCP, "b", o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.qp.Accept(a.qp.Address()), a.qp.Connect(t.Context(), b.qp.Address())); err != nil {
		t.Fatal(err)
	}
	if err := a.do(t.Context(), []rdma.WorkRequest{rdma.WriteImm(1, rdma.Local{}, b.region.Remote(), wordOffset, 1)}); err != nil {
		t.Fatal(err)
	}
	if err := b.qp.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.answer(a.region.Remote())(); !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("the answering ended with %v", err)
	}
	if err := errors.Join(a.close(), b.close()); err != nil {
		t.Error(err)
	}
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"size": {Size: maxSize + 1}, "negative size": {Size: -1}, "batch": {Batch: maxBatch + 1}, "duration": {Duration: -1}, "spin": {Spin: -1},
	} {
		if _, err := Run(t.Context(), openTCP, o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
