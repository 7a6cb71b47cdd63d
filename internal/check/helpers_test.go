package check

import (
	"slices"
	"strings"
	"testing"
)

// Constructors that let a history in a test be read at a glance. All transactions are acknowledged unless said
// otherwise.

func txn(id int, call, ret int64, ops ...Op) Txn {
	return Txn{ID: id, Client: id, Call: call, Return: ret, Outcome: OK, Ops: ops}
}

func failed(t Txn) Txn {
	t.Outcome = Failed
	return t
}

func unknown(t Txn) Txn {
	t.Outcome, t.Return = Unknown, 0
	return t
}

// whenever is a transaction that is concurrent with all others of the table tests.
func whenever(id int, ops ...Op) Txn { return txn(id, 0, 1000, ops...) }

func appendTo(key string, elem int64) Op    { return Op{Kind: Append, Key: key, Element: elem} }
func read(key string, list ...int64) Op     { return Op{Kind: Read, Key: key, List: list} }
func addTo(key string, delta int64) Op      { return Op{Kind: Add, Key: key, Delta: delta} }
func count(key string, value int64) Op      { return Op{Kind: ReadCounter, Key: key, Value: value} }
func found(key string, list ...int64) Found { return Found{Key: key, List: list} }
func scan(prefix string, f ...Found) Op     { return Op{Kind: Scan, Prefix: prefix, Found: f} }
func scanUpTo(prefix string, f ...Found) Op {
	return Op{Kind: Scan, Prefix: prefix, Found: f, Truncated: true}
}
func checkAll(h ...Txn) Report { return Check(h, Options{}) }
func (h History) byID(id int) *Txn {
	return &h[slices.IndexFunc(h, func(t Txn) bool { return t.ID == id })]
}
func (t *Txn) appends(key string, e int64) bool { return slices.ContainsFunc(t.Ops, isAppend(key, e)) }

func isAppend(key string, e int64) func(Op) bool {
	return func(op Op) bool { return op.Kind == Append && op.Key == key && op.Element == e }
}

// lists returns what t read of key, nil for a scan that claims the key absent.
func (t *Txn) lists(key string) (out [][]int64) {
	for _, op := range t.Ops {
		switch {
		case op.Kind == Read && op.Key == key:
			out = append(out, op.List)
		case op.Kind == Scan && strings.HasPrefix(key, op.Prefix):
			if i := slices.IndexFunc(op.Found, func(f Found) bool { return f.Key == key }); i >= 0 {
				out = append(out, op.Found[i].List)
			} else if !op.Truncated || len(op.Found) > 0 && op.Found[len(op.Found)-1].Key > key {
				out = append(out, nil)
			}
		}
	}
	return out
}

// verifyEvidence holds the evidence of each reported cycle against the history, independently of how it was found.
func verifyEvidence(t testing.TB, h History, r Report) {
	t.Helper()
	for _, x := range r.Anomalies {
		if len(x.Cycle) == 1 || len(x.Cycle) != 0 && len(x.Txns) != len(x.Cycle) {
			t.Fatalf("cycle of %d edges with %d transactions:\n%v", len(x.Cycle), len(x.Txns), x)
		}
		for i, e := range x.Cycle {
			from, to := h.byID(e.From), h.byID(e.To)
			hasElement := func(list []int64) bool { return slices.Contains(list, e.Element) }
			proven := false
			switch e.Dependency {
			case RealTime:
				proven = from.Outcome == OK && from.Return < to.Call
			case WW:
				proven = to.appends(e.Key, e.Element) && slices.ContainsFunc(from.Ops, func(op Op) bool {
					return op.Kind == Append && op.Key == e.Key
				})
			case WR:
				proven = from.appends(e.Key, e.Element) && slices.ContainsFunc(to.lists(e.Key), hasElement)
			case RW:
				proven = to.appends(e.Key, e.Element) && slices.ContainsFunc(from.lists(e.Key), func(list []int64) bool {
					return !hasElement(list)
				})
			}
			if next := x.Cycle[(i+1)%len(x.Cycle)]; !proven || e.To != next.From || e.From != x.Txns[i] || e.From == e.To {
				t.Fatalf("edge %d is not proven by the history:\n%v", i, x)
			}
		}
	}
}
