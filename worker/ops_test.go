package worker_test

import (
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

func TestOps(t *testing.T) {
	op := func(kind worker.OpKind, k, v string) worker.Op {
		return worker.Op{Kind: kind, Key: key(k), Value: []byte(v)}
	}
	version := func(v base.Version) *base.Version { return &v }
	cases := []struct {
		name string
		ops  []worker.Op
		want string // the output, or the error's word
	}{
		{"absent", []worker.Op{get("a")}, `{"results":[{"value":null,"found":false,"version":0}]}`},
		{"put", []worker.Op{put("a", "1")}, `{"results":[{"value":"1","found":true,"version":1}]}`},
		{
			"reads see earlier writes",
			[]worker.Op{get("a"), put("a", "2"), get("a"), put("a", "3"), get("a")},
			`{"results":[{"value":"1","found":true,"version":1},{"value":"2","found":true,"version":2},{"value":"2","found":true,"version":2},` +
				`{"value":"3","found":true,"version":2},{"value":"3","found":true,"version":2}]}`,
		},
		{"delete", []worker.Op{op(worker.OpDelete, "a", ""), get("a")}, `{"results":[{"value":null,"found":false,"version":3},{"value":null,"found":false,"version":3}]}`},
		{"delete what is absent", []worker.Op{op(worker.OpDelete, "a", "")}, `{"results":[{"value":null,"found":false,"version":3}]}`},
		{"a version is never used twice", []worker.Op{put("a", "again")}, `{"results":[{"value":"again","found":true,"version":4}]}`},
		{"add to nothing", []worker.Op{op(worker.OpAdd, "n", "-5")}, `{"results":[{"value":"-5","found":true,"version":1}]}`},
		{"add", []worker.Op{op(worker.OpAdd, "n", "7"), op(worker.OpAdd, "n", "1")}, `{"results":[{"value":"2","found":true,"version":2},{"value":"3","found":true,"version":2}]}`},
		{"add to text", []worker.Op{op(worker.OpAdd, "a", "1")}, "function-error"},
		{"add of text", []worker.Op{op(worker.OpAdd, "n", "x")}, "invalid-txn"},
		{"append to nothing", []worker.Op{op(worker.OpAppend, "l", `{"x":1}`)}, `{"results":[{"value":"[{\"x\":1}]","found":true,"version":1}]}`},
		{"append", []worker.Op{op(worker.OpAppend, "l", `2`)}, `{"results":[{"value":"[{\"x\":1},2]","found":true,"version":2}]}`},
		{"append to text", []worker.Op{put("b", "x"), op(worker.OpAppend, "a", `2`)}, "function-error"},
		{"nothing of a failed transaction stays", []worker.Op{get("b")}, `{"results":[{"value":null,"found":false,"version":0}]}`},
		{"not UTF-8", []worker.Op{put("bin", "\xff\x00")}, `{"results":[{"value_base64":"/wA=","found":true,"version":1}]}`},
		{"control characters", []worker.Op{put("ctl", "a\n\"")}, `{"results":[{"value":"a\n\"","found":true,"version":1}]}`},
		{"if absent, and it is not", []worker.Op{{Kind: worker.OpPut, Key: key("a"), IfAbsent: true}}, "precondition"},
		{"if absent, and it is", []worker.Op{{Kind: worker.OpPut, Key: key("c"), IfAbsent: true}}, `{"results":[{"value":"","found":true,"version":1}]}`},
		{"if version, another", []worker.Op{{Kind: worker.OpPut, Key: key("c"), IfMatch: version(2)}}, "precondition"},
		{"if version", []worker.Op{{Kind: worker.OpPut, Key: key("c"), IfMatch: version(1)}}, `{"results":[{"value":"","found":true,"version":2}]}`},
		{"if present, and it is not", []worker.Op{{Kind: worker.OpDelete, Key: key("d"), IfPresent: true}}, "precondition"},
		{"too large", []worker.Op{put("e", strings.Repeat("x", base.MaxValueBytes+1))}, "too-large"},
		{"bad key", []worker.Op{{Kind: worker.OpGet, Key: base.Key{Table: "../t", Key: "k"}}}, "invalid-name"},
	}
	b := newBed(t, worker.Options{}, nil)
	for _, c := range cases {
		r := b.ops(c.ops...)
		got := string(r.Output)
		if r.Err != nil {
			got = r.Err.Word()
		}
		if got != c.want {
			t.Errorf("%s:\n got %s (%v)\nwant %s", c.name, got, r.Err, c.want)
		}
	}
}
