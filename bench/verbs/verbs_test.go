package verbs

import (
	"context"
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

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"size": {Size: maxSize + 1}, "negative size": {Size: -1}, "batch": {Batch: maxBatch + 1}, "duration": {Duration: -1}, "spin": {Spin: -1},
	} {
		if _, err := Run(t.Context(), openTCP, o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
