package check

import "testing"

// goodHistories has the innocent twin of most bad histories.
var goodHistories = []struct {
	name string
	h    History
}{
	{"empty", nil},
	{"no operations", History{whenever(1), failed(whenever(2)), unknown(whenever(3))}},
	{"writes of one before the other's", History{
		whenever(1, appendTo("x", 1), appendTo("y", 1)),
		whenever(2, appendTo("x", 2), appendTo("y", 2)),
		whenever(3, read("x", 1, 2), read("y", 1, 2)),
	}},
	{"failed append not seen", History{
		failed(whenever(1, appendTo("x", 1))),
		whenever(2, read("x")),
	}},
	{"reads of a failed transaction are no evidence", History{
		failed(whenever(1, read("x", 7), read("y", 1, 1))),
		whenever(2, read("x")),
	}},
	{"reads of an unknown transaction are no evidence", History{
		txn(1, 0, 10, appendTo("x", 1)),
		unknown(txn(2, 20, 0, read("x"), appendTo("y", 1))),
		txn(3, 30, 40, read("y", 1), read("x", 1)),
	}},
	{"both appends of one transaction seen", History{
		whenever(1, appendTo("x", 1), appendTo("x", 2)),
		whenever(2, read("x", 1, 2)),
	}},
	{"own intermediate state", History{
		whenever(1, appendTo("x", 1), read("x", 1), appendTo("x", 2), read("x", 1, 2)),
	}},
	{"own appends behind what was there", History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, appendTo("x", 2), read("x", 1, 2), appendTo("x", 3)),
		txn(3, 40, 50, read("x", 1, 2, 3)),
	}},
	{"information flows one way", History{
		whenever(1, appendTo("x", 1), read("y")),
		whenever(2, appendTo("y", 2), read("x", 1)),
	}},
	{"updates one after the other", History{
		whenever(1, read("x"), appendTo("x", 1)),
		whenever(2, read("x", 1), appendTo("x", 2)),
		whenever(3, read("x", 1, 2)),
	}},
	{"last update that nobody read afterwards", History{
		whenever(1, read("x"), appendTo("x", 1)),
		whenever(2, read("x")),
		whenever(3, read("x")),
	}},
	{"blind appends that nobody read", History{
		txn(1, 0, 10, appendTo("x", 1)),
		txn(2, 20, 30, appendTo("x", 2)),
		whenever(3, read("x")),
	}},
	{"one of the skewed writers sees the other", History{
		whenever(1, read("y"), appendTo("x", 1)),
		whenever(2, read("x", 1), appendTo("y", 2)),
	}},
	{"readers agree on a fork", History{
		whenever(1, appendTo("x", 1)),
		whenever(2, appendTo("y", 1)),
		whenever(3, read("x", 1), read("y")),
		whenever(4, read("x", 1), read("y", 1)),
	}},
	{"concurrent appends in either order", History{
		txn(1, 0, 20, appendTo("x", 1)),
		txn(2, 20, 30, appendTo("x", 2)), // equal instants are concurrent
		txn(3, 40, 50, read("x", 2, 1)),
	}},
	{"read concurrent with the append", History{
		txn(1, 0, 20, appendTo("x", 1)),
		txn(2, 10, 30, read("x")),
		txn(3, 40, 50, read("x", 1)),
	}},
	{"unknown append never seen", History{
		unknown(txn(1, 0, 0, appendTo("x", 1))),
		txn(2, 20, 30, read("x")),
	}},
	{"unknown append seen late", History{
		unknown(txn(1, 0, 0, appendTo("x", 1), appendTo("y", 1))),
		txn(2, 20, 30, read("x"), read("y")),
		txn(3, 40, 50, read("x", 1), read("y", 1)),
	}},
	{"unknown append after a later acknowledged one", History{
		unknown(txn(1, 0, 0, appendTo("x", 1))),
		txn(2, 20, 30, appendTo("x", 2)),
		txn(3, 40, 50, read("x", 2, 1)),
	}},
	{"scans see what is there", History{
		txn(1, 0, 10, appendTo("a/1", 1), appendTo("a/2", 1), appendTo("b/1", 1)),
		txn(2, 20, 30, scan("a/", found("a/1", 1), found("a/2", 1)), scan("", found("a/1", 1), found("a/2", 1), found("b/1", 1))),
		txn(3, 40, 50, scanUpTo("a/", found("a/1", 1)), scanUpTo("a/"), scan("c/")),
	}},
	{"scan with own append", History{
		whenever(1, appendTo("a/1", 1)),
		whenever(2, scan("a/"), appendTo("a/2", 2), scan("a/", found("a/2", 2))),
	}},
	{"counters are invisible to scans", History{
		txn(1, 0, 10, addTo("a/n", 1)),
		txn(2, 20, 30, scan("a/")),
	}},
	{"counter with everything in order", History{
		txn(1, 0, 10, addTo("n", 5), addTo("n", -7)),
		failed(txn(2, 0, 10, addTo("n", 100))),
		txn(3, 20, 30, count("n", -2), addTo("n", 3), count("n", 1)),
		txn(4, 40, 50, count("n", 1)),
	}},
	{"counter with additions at the very instants of the read", History{
		txn(1, 0, 10, addTo("n", 5)),
		txn(2, 10, 20, count("n", 0)),
		txn(3, 10, 20, count("n", 7)),
		txn(4, 20, 30, addTo("n", 2)),
	}},
	{"counter with concurrent additions", History{
		whenever(1, addTo("n", 5)),
		unknown(txn(2, 0, 0, addTo("n", -3))),
		txn(3, 10, 20, count("n", -3)),
		txn(4, 30, 40, count("n", 5)),
	}},
}

func TestGoodHistories(t *testing.T) {
	for _, tc := range goodHistories {
		t.Run(tc.name, func(t *testing.T) {
			if r := Check(tc.h, Options{}); !r.OK() {
				t.Fatal(r)
			}
		})
	}
}
