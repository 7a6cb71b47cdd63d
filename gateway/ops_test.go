package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

// opText shows operations in one line, for tables.
func opText(ops []worker.Op) string {
	var parts []string
	for i := range ops {
		parts = append(parts, fmt.Sprintf("%d %s=%q", ops[i].Kind, ops[i].Key, ops[i].Value))
	}
	return strings.Join(parts, "; ")
}

// TestTxnBody is a table of bodies with what they mean or what is wrong.
func TestTxnBody(t *testing.T) {
	many := func(n int) string {
		return `{"ops":[` + strings.TrimSuffix(strings.Repeat(`{"op":"get","table":"t","key":"k"},`, n), ",") + `]}`
	}
	for _, row := range []struct {
		body, want, word, detail string
	}{
		{`{"ops":[{"op":"get","table":"t","key":"k"}]}`, `1 t/k=""`, "", ""},
		{`{"ops":[{"op":"put","table":"t","key":"k","value":"a\u00e9\n"}]}`, `2 t/k="aé\n"`, "", ""},
		{`{"ops":[{"op":"put","table":"t","key":"k","value":{ "a b" : [ 1, "\" x" ] }}]}`, `2 t/k="{\"a b\":[1,\"\\\" x\"]}"`, "", ""},
		{`{"ops":[{"op":"put","table":"t","key":"k","value":null}]}`, `2 t/k="null"`, "", ""},
		{`{"ops":[{"op":"put","table":"t","key":"k","value":1.50}]}`, `2 t/k="1.50"`, "", ""},
		{`{"ops":[{"op":"put","table":"t","key":"k","value":""}]}`, `2 t/k=""`, "", ""},
		{`{"ops":[{"op":"put","table":"t","key":"k","value_base64":"/wA="}]}`, `2 t/k="\xff\x00"`, "", ""},
		{`{"ops":[{"key":"k/\u0041","table":"t","op":"delete"}]}`, `3 t/k/A=""`, "", ""},
		{`{"ops":[{"op":"add","table":"t","key":"k","value":-5}]}`, `4 t/k="-5"`, "", ""},
		{`{"ops":[{"op":"add","table":"t","key":"k","value":"9223372036854775807"}]}`, `4 t/k="9223372036854775807"`, "", ""},
		{`{"ops":[{"op":"append","table":"t","key":"k","value":"s"}]}`, `5 t/k="\"s\""`, "", ""},
		{`{"ops":[{"op":"append","table":"t","key":"k","value":[ 1 ]}]}`, `5 t/k="[1]"`, "", ""},
		{many(1024), "", "", ""},
		{many(1025), "", "invalid-txn", "more than 1024"},
		{`{"ops":[]}`, "", "invalid-txn", "there is none"},
		{`{}`, "", "invalid-txn", "there is none"},
		{`[]`, "", "invalid-txn", "must be an object"},
		{`{"ops":{}}`, "", "invalid-txn", "must be an array"},
		{`{"ops":[1]}`, "", "invalid-txn", "ops[0]: must be an object"},
		{`{"ops":[],"ops":[]}`, "", "invalid-txn", "given twice"},
		{`{"opps":[]}`, "", "invalid-txn", `"opps" is not a member`},
		{`{"ops":[{"op":"get","table":"t","key":"k"}]} x`, "", "invalid-txn", "not valid JSON"},
		{"{\"ops\":\"\xff\"}", "", "invalid-txn", "UTF-8"},
		{strings.Repeat("[", 1<<20), "", "invalid-txn", "nested deeper"},
		{`{"ops":[{"op":"get","table":"t","key":"k"},{"op":"jump","table":"t","key":"k"}]}`, "", "invalid-txn", "ops[1].op: must be get, put"},
		{`{"ops":[{"table":"t","key":"k"}]}`, "", "invalid-txn", "ops[0].op:"},
		{`{"ops":[{"op":"get","key":"k"}]}`, "", "invalid-txn", "ops[0].table: must be a string"},
		{`{"ops":[{"op":"get","table":"t"}]}`, "", "invalid-txn", "ops[0].key: must be a string"},
		{`{"ops":[{"op":"get","table":"t","key":1}]}`, "", "invalid-txn", "ops[0].key: must be a string"},
		{`{"ops":[{"op":"get","table":"a b","key":"k"}]}`, "", "invalid-txn", "ops[0].table:"},
		{`{"ops":[{"op":"get","table":"t","key":""}]}`, "", "invalid-txn", "ops[0].key:"},
		{`{"ops":[{"op":"get","table":"t","key":"a\u0000"}]}`, "", "invalid-txn", "ops[0].key:"},
		{`{"ops":[{"op":"get","table":"t","key":"` + strings.Repeat("k", 1025) + `"}]}`, "", "too-large", "ops[0].key:"},
		{`{"ops":[{"op":"get","table":"t","key":"k","value":1}]}`, "", "invalid-txn", "ops[0].value: get takes none"},
		{`{"ops":[{"op":"delete","table":"t","key":"k","value_base64":""}]}`, "", "invalid-txn", "ops[0].value_base64: only put"},
		{`{"ops":[{"op":"put","table":"t","key":"k"}]}`, "", "invalid-txn", "ops[0].value: is missing"},
		{`{"ops":[{"op":"put","table":"t","key":"k","value":1,"value_base64":""}]}`, "", "invalid-txn", "either"},
		{`{"ops":[{"op":"put","table":"t","key":"k","value_base64":"?"}]}`, "", "invalid-txn", "ops[0].value_base64:"},
		{`{"ops":[{"op":"put","table":"t","key":"k","value_base64":1}]}`, "", "invalid-txn", "ops[0].value_base64: must be a string"},
		{`{"ops":[{"op":"put","table":"t","key":"k","value":"` + strings.Repeat("v", 1<<20+1) + `"}]}`, "", "too-large", "ops[0].value:"},
		{`{"ops":[{"op":"append","table":"t","key":"k"}]}`, "", "invalid-txn", "ops[0].value: is missing"},
		{`{"ops":[{"op":"add","table":"t","key":"k","value":1.5}]}`, "", "invalid-txn", "ops[0].value: must be a decimal integer"},
		{`{"ops":[{"op":"add","table":"t","key":"k","value":1e3}]}`, "", "invalid-txn", "ops[0].value:"},
		{`{"ops":[{"op":"add","table":"t","key":"k","value":9223372036854775808}]}`, "", "invalid-txn", "ops[0].value:"},
		{`{"ops":[{"op":"add","table":"t","key":"k","value":true}]}`, "", "invalid-txn", "ops[0].value:"},
		{`{"ops":[{"op":"add","table":"t","key":"k"}]}`, "", "invalid-txn", "ops[0].value:"},
		{`{"ops":[{"op":"put","table":"t","key":"k","value":1,"if_match":"1"}]}`, "", "invalid-txn", "ops[0].if_match: is not a member"},
		{`{"ops":[{"op":"put","op":"get","table":"t","key":"k"}]}`, "", "invalid-txn", "ops[0].op: is given twice"},
	} {
		r := newRig(t, Options{})
		ops, err := r.parseTxn([]byte(row.body))
		var word, detail string
		if e := (*base.Error)(nil); errors.As(err, &e) {
			word, detail = e.Word(), e.Detail
		}
		if word != row.word || !strings.Contains(detail, row.detail) || row.want != "" && opText(ops) != row.want {
			t.Errorf("%.120s: [%s] %s, %s", row.body, word, detail, opText(ops))
		}
	}
}

// FuzzTxnBody compares parseTxn with encoding/json: whatever is accepted is
// valid there, too, and means the same operations.
func FuzzTxnBody(f *testing.F) {
	f.Add([]byte(`{"ops":[{"op":"put","table":"t","key":"k","value":{"a":[1,"\\\""]}},{"op":"add","table":"t","key":"k","value":"-3"}]}`))
	f.Add([]byte(`{"ops":[{"op":"append","table":"t","key":"\ud800","value_base64":"AA=="}]}`))
	f.Add([]byte(`{"ops":[{"op":"get","table":"t","key":"k"},]}`))
	f.Add([]byte(`{"\u006fps":[{"op":"g\u0065t","table":"t","key":"k"}]}`))
	r := newRig(f, Options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		ops, err := r.parseTxn(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			e, ok := errors.AsType[*base.Error](err)
			if !ok || e.Word() != "invalid-txn" && e.Kind != base.TooLarge {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		var want txnBody
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&want); err != nil || len(want.Ops) != len(ops) {
			t.Fatalf("%q: %d operations, encoding/json has %d: %v", body, len(ops), len(want.Ops), err)
		}
		for i, op := range ops {
			if w := &want.Ops[i]; op.Key != (base.Key{Table: w.Table, Key: w.Key}) || !bytes.Equal(op.Value, wantValue(t, w)) {
				t.Fatalf("%q: operation %d is %s", body, i, opText(ops[i:i+1]))
			}
			if op.Key.Validate() != nil {
				t.Fatalf("%q: key %q", body, op.Key)
			}
		}
	})
}

// wantValue is what readOp must make of an operation, by encoding/json.
func wantValue(t *testing.T, op *txnOp) []byte {
	var text string
	isText := json.Unmarshal(op.Value, &text) == nil && bytes.HasPrefix(op.Value, []byte(`"`))
	switch {
	case op.Value == nil && op.Op == "put":
		return op.ValueBase64
	case isText && op.Op != "append":
		if op.Op == "add" { // "+07" is 7
			return canonical(t, text)
		}
		return []byte(text)
	case op.Value == nil:
		return nil
	case op.Op == "add":
		return canonical(t, string(op.Value))
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, op.Value); err != nil {
		t.Fatal(err)
	}
	return compact.Bytes()
}

func canonical(t *testing.T, text string) []byte {
	var n int64
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, "%d", n)
}

// TestLoad shows bulk loads: what is loaded, in how large transactions, and
// what a bad line leaves behind.
func TestLoad(t *testing.T) {
	line := func(i int) string { return fmt.Sprintf(`{"table":"t","key":"k%d","value":%d}`+"\n", i, i) }
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	large := `{"table":"t","key":"l","value":"` + strings.Repeat("v", 200<<10) + `"}` + "\n"
	for _, row := range []struct {
		name, body string
		status     int
		detail     string // of the problem
		loaded     int64
		batches    string
	}{
		{"nothing", "", 200, "", 0, "[]"},
		{"blank lines", "\n \r\n" + line(1) + "\n", 200, "", 1, "[1]"},
		{"no line end", strings.TrimSpace(line(1)), 200, "", 1, "[1]"},
		{"by lines", lines(1100), 200, "", 1100, "[512 512 76]"},
		{"by bytes", large + large + line(1), 200, "", 3, "[1 2]"},
		{"text", line(1) + "x\n" + line(2), 400, "line 2: is not one JSON", 1, "[1]"},
		{"missing key", lines(600) + `{"table":"t","value":1}`, 400, "line 601: key:", 600, "[512 88]"},
		{"blank before", "\n\n" + `{"table":"t","value":1}`, 400, "line 3: key:", 0, "[]"},
		{"array", "[]", 400, "line 1: must be a JSON object", 0, "[]"},
		{"two on a line", `{"table":"t","key":"k","value":1}{}`, 400, "line 1:", 0, "[]"},
		{"unknown member", `{"table":"t","key":"k","value":1,"op":"put"}`, 400, "line 1: op: is not a member", 0, "[]"},
		{"no value", `{"table":"t","key":"k"}`, 400, "line 1: value: is missing", 0, "[]"},
		{"bad table", `{"table":"a/b","key":"k","value":1}`, 400, "line 1: table:", 0, "[]"},
		{"bomb", strings.Repeat("[", 1<<20), 400, "line 1:", 0, "[]"},
		{"large value", line(1) + `{"table":"t","key":"l","value":"` + strings.Repeat("v", 1<<20+1) + `"}`, 413, "line 2: value:", 1, "[1]"},
		{"endless line", line(1) + strings.Repeat("x", 8<<20), 413, "line 2: has more than", 1, "[1]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t, Options{})
			w := r.do("POST", "/v1/state", row.body)
			var got struct {
				Loaded *int64
				Detail string
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Loaded == nil {
				t.Fatalf("status %d, body %s: %v", w.Code, w.Body, err)
			}
			if w.Code != row.status || *got.Loaded != row.loaded || !strings.Contains(got.Detail, row.detail) || fmt.Sprint(r.executor.loads) != row.batches {
				t.Errorf("status %d, batches %v, body %s", w.Code, r.executor.loads, w.Body)
			}
			if w := word(t, w); row.status == 400 && w != "invalid-ndjson" || row.status == 413 && w != "too-large" {
				t.Errorf("the word is %q", w)
			}
			if r.inFlight.Load() != 0 {
				t.Error("the load is still counted")
			}
		})
	}
	r := newRig(t, Options{LoadLines: 2})
	r.executor.load = func(_ context.Context, ops []worker.Op) error {
		if ops[0].Key.Key == "k2" {
			return &base.Error{Kind: base.Timeout, Unknown: true}
		}
		return nil
	}
	w := r.do("POST", "/v1/state", lines(10))
	if p := problem(t, w.Header(), w.Code, w.Body.Bytes()); w.Code != 504 || p.Loaded == nil || *p.Loaded != 2 {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
}

// FuzzNDJSON checks that lines count: what is loaded plus the line that is
// refused is what was sent, and every loaded value is reachable.
func FuzzNDJSON(f *testing.F) {
	f.Add([]byte("{\"table\":\"t\",\"key\":\"k\",\"value\":{\"a\": 1}}\n\n{\"table\":\"t\",\"key\":\"k\",\"value_base64\":\"AA==\"}\n"))
	f.Add([]byte("{}\r\n{"))
	f.Add([]byte(`{"table":"t","key":"k","value":"` + base64.StdEncoding.EncodeToString(make([]byte, 99)) + `"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := newRig(t, Options{LoadLines: 3, LoadBytes: 64, MaxValueBytes: 128})
		w := r.do("POST", "/v1/state", string(body))
		loaded := 0
		for _, n := range r.executor.loads {
			loaded += n
			if n == 0 || n > 3 {
				t.Fatalf("a transaction of %d lines", n)
			}
		}
		var got struct{ Loaded int }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Loaded != loaded {
			t.Fatalf("%q: status %d, body %s, loaded %d", body, w.Code, w.Body, loaded)
		}
		switch w.Code {
		case 200:
			for line := range bytes.SplitSeq(body, []byte("\n")) {
				if len(bytes.TrimSpace(line)) > 0 {
					loaded--
				}
			}
			if loaded != 0 {
				t.Fatalf("%q: %d lines more than were sent", body, loaded)
			}
		case 400, 413:
			problem(t, w.Header(), w.Code, w.Body.Bytes())
		default:
			t.Fatalf("%q: status %d", body, w.Code)
		}
		for key, value := range r.executor.values {
			if key.Validate() != nil || len(value) > 128 {
				t.Fatalf("%q: loaded %q with %d bytes", body, key, len(value))
			}
		}
	})
}
