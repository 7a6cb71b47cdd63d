package check

import (
	"math"
	"strings"
	"testing"
)

// badHistories has at least one hand-made history for each kind of anomaly, which must be the first that is reported.
var badHistories = []struct {
	name string
	want Kind
	// realTime: the history is serializable, only not in the order of real time.
	realTime bool
	h        History
}{
	{name: "interleaved writes", want: G0, h: History{
		whenever(1, appendTo("x", 1), appendTo("y", 1)),
		whenever(2, appendTo("x", 2), appendTo("y", 2)),
		whenever(3, read("x", 1, 2), read("y", 2, 1)),
	}},
	{name: "another's append between two of one transaction", want: G0, h: History{
		whenever(1, appendTo("x", 1), appendTo("x", 3)),
		whenever(2, appendTo("x", 2)),
		whenever(3, read("x", 1, 2, 3)),
	}},
	{name: "aborted read", want: G1a, h: History{
		failed(whenever(1, appendTo("x", 1))),
		whenever(2, read("x", 1)),
	}},
	{name: "aborted read by scan", want: G1a, h: History{
		failed(whenever(1, appendTo("a/x", 1))),
		whenever(2, scan("a/", found("a/x", 1))),
	}},
	{name: "intermediate read", want: G1b, h: History{
		whenever(1, appendTo("x", 1), appendTo("x", 2)),
		whenever(2, read("x", 1)),
		whenever(3, read("x", 1, 2)),
	}},
	{name: "intermediate read, the rest never seen", want: G1b, h: History{
		whenever(1, appendTo("x", 1), appendTo("x", 2)),
		whenever(2, read("x", 1)),
	}},
	{name: "circular information flow", want: G1c, h: History{
		whenever(1, appendTo("x", 1), read("y", 2)),
		whenever(2, appendTo("y", 2), read("x", 1)),
	}},
	{name: "circular information flow through an unknown transaction", want: G1c, h: History{
		whenever(1, appendTo("x", 1), read("y", 2)),
		unknown(whenever(2, appendTo("y", 2), appendTo("x", 2))),
		whenever(3, read("x", 1, 2)),
	}},
	{name: "read skew", want: GSingle, h: History{
		whenever(1, appendTo("x", 1), appendTo("y", 1)),
		whenever(2, read("x"), read("y", 1)),
	}},
	{name: "lost update", want: GSingle, h: History{
		whenever(1, read("x"), appendTo("x", 1)),
		whenever(2, read("x"), appendTo("x", 2)),
		whenever(3, read("x", 1, 2)),
	}},
	{name: "read skew within a shorter write skew", want: GSingle, h: History{
		whenever(1, read("y"), appendTo("x", 1), read("w", 1)),
		whenever(2, read("x"), appendTo("y", 2), appendTo("z", 1)),
		whenever(3, read("z", 1), appendTo("w", 1)),
	}},
	{name: "half of an unknown transaction", want: GSingle, h: History{
		unknown(whenever(1, appendTo("x", 1), appendTo("y", 1))),
		whenever(2, read("x", 1), read("y")),
	}},
	{name: "phantom: a scan misses a key that its other result implies", want: GSingle, h: History{
		whenever(1, appendTo("a/1", 1), appendTo("a/2", 1)),
		whenever(2, scan("a/", found("a/2", 1))),
	}},
	{name: "write skew", want: G2, h: History{
		whenever(1, read("y"), appendTo("x", 1)),
		whenever(2, read("x"), appendTo("y", 2)),
	}},
	{name: "write skew over three keys", want: G2, h: History{
		whenever(1, read("y"), appendTo("x", 1)),
		whenever(2, read("z"), appendTo("y", 2)),
		whenever(3, read("x"), appendTo("z", 3)),
	}},
	{name: "lost update that nobody read afterwards", want: G2, h: History{
		whenever(1, read("x"), appendTo("x", 1)),
		whenever(2, read("x"), appendTo("x", 2)),
	}},
	{name: "long fork", want: G2, h: History{
		whenever(1, appendTo("x", 1)),
		whenever(2, appendTo("y", 1)),
		whenever(3, read("x", 1), read("y")),
		whenever(4, read("x"), read("y", 1)),
	}},
	{name: "phantom: both scans miss the other's key", want: G2, h: History{
		whenever(1, scan("a/"), appendTo("a/1", 1)),
		whenever(2, scan("a/"), appendTo("a/2", 2)),
	}},
	{name: "appends in the reverse of real time", want: G0RealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, appendTo("x", 2)),
		whenever(3, read("x", 2, 1)),
	}},
	{name: "read from the future", want: G1cRealTime, realTime: true, h: History{
		txn(1, 0, 10, read("x", 1)),
		txn(2, 20, 30, appendTo("x", 1)),
	}},
	{name: "read from the future of an unknown transaction", want: G1cRealTime, realTime: true, h: History{
		txn(1, 0, 10, read("x", 1)),
		unknown(txn(2, 20, 0, appendTo("x", 1))),
	}},
	{name: "stale read", want: GSingleRealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, read("x")),
		txn(3, 40, 50, read("x", 1)),
	}},
	{name: "stale read, detected through a third transaction", want: GSingleRealTime, realTime: true, h: History{
		whenever(1, appendTo("x", 1)),
		txn(2, 0, 10, read("x", 1)),
		txn(3, 20, 30, read("x")),
	}},
	{name: "lost acknowledged append, the first of its key", want: GSingleRealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, read("x")),
	}},
	{name: "lost acknowledged append, behind others", want: GSingleRealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, appendTo("x", 2)),
		txn(3, 40, 50, read("x", 1)),
		txn(4, 60, 70, read("x", 1)),
	}},
	{name: "lost acknowledged append, overwritten by a reader", want: GSingleRealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, read("x"), appendTo("x", 2)),
		txn(3, 40, 50, read("x", 2)),
	}},
	{name: "lost acknowledged append, missed by a later appender only", want: GSingleRealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, read("x"), appendTo("x", 2)),
	}},
	{name: "lost acknowledged append, in the middle", want: GSingleRealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, appendTo("x", 2)),
		txn(3, 40, 50, appendTo("x", 3)),
		txn(4, 60, 70, read("x", 1, 3)),
	}},
	{name: "stale scan", want: GSingleRealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("a/1", 1)),
		txn(2, 20, 30, scan("a/")),
	}},
	{name: "stale truncated scan", want: GSingleRealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("a/1", 1)),
		txn(2, 0, 10, appendTo("a/2", 1)),
		txn(3, 20, 30, scanUpTo("a/", found("a/2", 1))),
	}},
	{name: "write skew that only real time closes", want: G2RealTime, realTime: true, h: History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, read("y")),
		whenever(3, appendTo("y", 1)),
		whenever(4, read("x"), read("y", 1)),
	}},
	{name: "incompatible orders", want: IncompatibleOrder, h: History{
		whenever(1, appendTo("x", 1)),
		whenever(2, appendTo("x", 2)),
		whenever(3, read("x", 1, 2)),
		whenever(4, read("x", 2, 1)),
	}},
	{name: "an element vanishes", want: IncompatibleOrder, h: History{
		whenever(1, appendTo("x", 1)),
		whenever(2, appendTo("x", 2)),
		whenever(3, read("x", 1, 2)),
		whenever(4, read("x", 2)),
	}},
	{name: "append applied twice", want: DuplicateElement, h: History{
		whenever(1, appendTo("x", 1)),
		whenever(2, read("x", 1, 1)),
		whenever(3, read("x", 1)),
	}},
	{name: "element from nowhere", want: GarbageRead, h: History{
		whenever(1, appendTo("x", 1)),
		whenever(2, read("x", 1, 7)),
	}},
	{name: "element of another key", want: GarbageRead, h: History{
		whenever(1, appendTo("x", 1), appendTo("y", 2)),
		whenever(2, read("y", 1)),
	}},
	{name: "own append not seen", want: Internal, h: History{
		whenever(1, appendTo("x", 1), read("x")),
	}},
	{name: "own append not seen by a scan", want: Internal, h: History{
		whenever(1, appendTo("a/1", 1), scan("a/")),
	}},
	{name: "own append not seen after an earlier read", want: Internal, h: History{
		whenever(1, appendTo("x", 1)),
		whenever(2, read("x", 1), appendTo("x", 2), read("x", 1)),
	}},
	{name: "key changes between two reads of one transaction", want: Internal, h: History{
		whenever(1, appendTo("x", 1)),
		whenever(2, read("x"), read("x", 1)),
	}},
	{name: "key changes between read and scan of one transaction", want: Internal, h: History{
		whenever(1, appendTo("a/1", 1)),
		whenever(2, read("a/1", 1), scan("a/")),
	}},
	{name: "own append seen before it is made", want: Internal, h: History{
		whenever(1, read("x", 1), appendTo("x", 1)),
	}},
	{name: "counter contradicts own addition", want: Internal, h: History{
		whenever(1, count("n", 0), addTo("n", 2), count("n", 1)),
		whenever(2, addTo("n", -1)),
	}},
	{name: "scan out of its prefix", want: BadScan, h: History{
		whenever(1, appendTo("b/1", 1)),
		whenever(2, scan("a/", found("b/1", 1))),
	}},
	{name: "scan out of order", want: BadScan, h: History{
		whenever(1, appendTo("a/1", 1), appendTo("a/2", 1)),
		whenever(2, scan("a/", found("a/2", 1), found("a/1", 1))),
	}},
	{name: "counter misses an acknowledged addition", want: CounterBound, realTime: true, h: History{
		txn(1, 0, 10, addTo("n", 5)),
		txn(2, 20, 30, count("n", 0)),
	}},
	{name: "counter holds a failed addition", want: CounterBound, realTime: true, h: History{
		failed(txn(1, 0, 10, addTo("n", 5))),
		txn(2, 20, 30, count("n", 5)),
	}},
	{name: "counter holds an addition twice", want: CounterBound, realTime: true, h: History{
		unknown(txn(1, 0, 10, addTo("n", 5))),
		txn(2, 20, 30, count("n", 10)),
	}},
	{name: "counter holds an addition from the future", want: CounterBound, realTime: true, h: History{
		txn(1, 0, 10, count("n", 5)),
		txn(2, 20, 30, addTo("n", 5)),
	}},
	{name: "counter loses an addition to its own", want: CounterBound, realTime: true, h: History{
		txn(1, 0, 10, addTo("n", 5)),
		txn(2, 20, 30, addTo("n", 2), count("n", 2)),
	}},
	{name: "counter holds its own addition too early", want: CounterBound, realTime: true, h: History{
		txn(1, 0, 10, count("n", 5), addTo("n", 5)),
	}},
	{name: "counter holds its own subtraction too early", want: CounterBound, realTime: true, h: History{
		txn(1, 0, 10, count("n", -5), addTo("n", -5)),
	}},
	{name: "counter value at the end of int64", want: CounterBound, realTime: true, h: History{
		txn(1, 0, 10, addTo("n", maxAdded)),
		txn(2, 20, 30, addTo("m", maxAdded), count("m", math.MinInt64)),
	}},
	{name: "element appended twice", want: Malformed, h: History{
		whenever(1, appendTo("x", 1)),
		failed(whenever(2, appendTo("x", 1))),
	}},
	{name: "id used twice", want: Malformed, h: History{whenever(1), whenever(1)}},
	{name: "return before call", want: Malformed, h: History{txn(1, 20, 10)}},
	{name: "no outcome", want: Malformed, h: History{{ID: 1}}},
	{name: "no kind", want: Malformed, h: History{whenever(1, Op{Key: "x"})}},
	{name: "list and counter", want: Malformed, h: History{whenever(1, read("x"), count("x", 0))}},
	{name: "counter in a scan", want: Malformed, h: History{
		whenever(1, addTo("a/n", 1)),
		whenever(2, scan("a/", found("a/n"))),
	}},
	{name: "additions that overflow", want: Malformed, h: History{
		whenever(1, addTo("n", math.MinInt64)),
	}},
	{name: "additions that overflow together", want: Malformed, h: History{
		whenever(1, addTo("n", maxAdded)),
		whenever(2, addTo("n", 1)),
	}},
}

func TestBadHistories(t *testing.T) {
	seen := map[Kind]bool{}
	for _, tc := range badHistories {
		t.Run(tc.name, func(t *testing.T) {
			r := Check(tc.h, Options{})
			if r.OK() || r.Anomalies[0].Kind != tc.want {
				t.Fatalf("want %v first, got: %v", tc.want, r)
			}
			seen[tc.want] = true
			verifyEvidence(t, tc.h, r)
			if serial := Check(tc.h, Options{IgnoreRealTime: true}); serial.OK() != tc.realTime {
				t.Fatalf("without real time: %v", serial)
			}
			// Without any budget the class may be too mild; that there is an anomaly must not be missed.
			if poor := Check(tc.h, Options{SearchBudget: 1}); poor.OK() {
				t.Fatal("missed with a budget of one edge")
			}
		})
	}
	for k := range kindEnd {
		if !seen[k] {
			t.Errorf("no history for %v", k)
		}
	}
}

func TestReportText(t *testing.T) {
	got := checkAll(
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, read("x")),
		failed(txn(3, 20, 30, appendTo("y", 1))),
		txn(4, 20, 30, read("y", 1)),
	).String()
	want := `2 anomalies in 4 transactions (3 committed), 4 operations, 2 keys, 8 edges
  G1a: T4 read "y" as [1]; 1 was appended by T3, which failed
  G-single-realtime: T1 -rt-> T2 -rw-> T1
    T1 -rt-> T2: T1 returned at 10, before T2 was called at 20
    T2 -rw-> T1: T2 read "x" as absent, without T1's append of 1, which is in no read
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got, want := checkAll().String(), "no anomaly in 0 transactions (0 committed), 0 operations, 0 keys, 0 edges\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestManyAnomaliesAreCounted bounds the report: what is not described is counted.
func TestManyAnomaliesAreCounted(t *testing.T) {
	var h History
	for i := range 30 {
		h = append(h, whenever(i, read("x", 7)))
	}
	for i := range 30 { // pairs of write skew, each on its own keys
		x, y := strings.Repeat("x", i+2), strings.Repeat("y", i+1)
		h = append(h, whenever(100+2*i, read(x), appendTo(y, 1)), whenever(101+2*i, read(y), appendTo(x, 1)))
	}
	r := Check(h, Options{MaxPerKind: 3})
	if len(r.Anomalies) != 4 || r.Omitted != 27 || r.Anomalies[0].Kind != GarbageRead || r.Anomalies[3].Kind != G2 {
		t.Fatalf("want 1 of garbage (30 equal reads count once) and 3 of G2 with 27 omitted, got %v", r)
	}
	if text := r.String(); !strings.HasPrefix(text, "31 anomalies") || !strings.Contains(text, "and 27 more") {
		t.Error(text)
	}
}

// TestLongCycle finds the one cycle of a history in which every transaction is part of it, however small the budget.
func TestLongCycle(t *testing.T) {
	const n = 2000
	var h History
	for i := range int64(n) {
		h = append(h, whenever(int(i), read(keyName(i), i+1), appendTo(keyName((i+1)%n), (i+1)%n+1)))
	}
	for _, budget := range []int{1, 0} {
		r := Check(h, Options{SearchBudget: budget})
		if len(r.Anomalies) != 1 || r.Anomalies[0].Kind != G1c || len(r.Anomalies[0].Cycle) != n {
			t.Fatalf("budget %d: %d anomalies", budget, len(r.Anomalies))
		}
	}
}
