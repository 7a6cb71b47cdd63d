package check

import (
	"reflect"
	"strings"
	"testing"
)

func TestEncodedForm(t *testing.T) {
	h := History{
		txn(1, 0, 10, appendTo("x", 1), read("x", 1), read("y")),
		failed(txn(2, 5, 6, addTo("n", -3), count("n", 0))),
		{ID: 3, Client: 7, Call: 20, Outcome: Unknown, Ops: []Op{scanUpTo("", found("x", 1), found("y")), scan("z")}},
	}
	want := `{"version":1,"txns":[` +
		`{"id":1,"client":1,"call":0,"return":10,"outcome":"ok","ops":[` +
		`{"op":"append","key":"x","element":1},{"op":"read","key":"x","list":[1]},{"op":"read","key":"y"}]},` +
		`{"id":2,"client":2,"call":5,"return":6,"outcome":"failed","ops":[` +
		`{"op":"add","key":"n","delta":-3},{"op":"readCounter","key":"n","value":0}]},` +
		`{"id":3,"client":7,"call":20,"return":0,"outcome":"unknown","ops":[` +
		`{"op":"scan","prefix":"","found":[{"key":"x","list":[1]},{"key":"y"}],"truncated":true},` +
		`{"op":"scan","prefix":"z"}]}]}` + "\n"
	data, err := EncodeHistory(h)
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != want {
		t.Errorf("got:\n%s\nwant:\n%s", data, want)
	}
	decoded, err := DecodeHistory(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(decoded, h) {
		t.Errorf("got %+v, want %+v", decoded, h)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for want, h := range map[string]History{
		"no outcome":   {{ID: 1}},
		"unknown kind": {whenever(1, Op{})},
		"not UTF-8":    {whenever(1, read("\xff"))},
		`"a\xff"`:      {whenever(1, scan("a", found("a\xff")))},
	} {
		if _, err := EncodeHistory(h); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	withOp := func(op string) string {
		return `{"version":1,"txns":[{"id":1,"client":1,"call":0,"return":1,"outcome":"ok","ops":[` + op + `]}]}`
	}
	for _, tc := range []struct{ data, want string }{
		{``, "EOF"},
		{`{"version":2,"txns":[]}`, "version 2"},
		{`{"version":1,"txns":[]} {}`, "something follows"},
		{`{"version":1,"txns":[],"more":1}`, "more"},
		{`{"version":1,"txns":[{"id":1,"outcome":"fine"}]}`, `"fine"`},
		{withOp(`{"op":"put","key":"x"}`), `"put"`},
		{withOp(`{"op":"append","key":"x"}`), `without "element"`},
		{withOp(`{"op":"append","element":1}`), `without "key"`},
		{withOp(`{"op":"add","key":"n"}`), `without "delta"`},
		{withOp(`{"op":"readCounter","key":"n"}`), `without "value"`},
		{withOp(`{"op":"scan"}`), `without "prefix"`},
		{withOp(`{"op":"scan","prefix":"a","key":"x"}`), "field of another kind"},
		{withOp(`{"op":"read","key":"x","truncated":true}`), "field of another kind"},
		{withOp(`{"op":"append","key":"x","element":1,"list":[1]}`), "field of another kind"},
	} {
		if _, err := DecodeHistory([]byte(tc.data)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want an error with %q, got %v", tc.data, tc.want, err)
		}
	}
}

// FuzzDecodeHistory: whatever decodes survives a round trip, and can be checked, twice with one result.
func FuzzDecodeHistory(f *testing.F) {
	for _, tc := range badHistories {
		if data, err := EncodeHistory(tc.h); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := DecodeHistory(data)
		if err != nil {
			return
		}
		encoded, err := EncodeHistory(h)
		if err != nil {
			t.Fatalf("decoded but not encoded again: %v", err)
		}
		again, err := DecodeHistory(encoded)
		if err != nil || !reflect.DeepEqual(h, again) {
			t.Fatalf("round trip: %v\n%+v\n%+v", err, h, again)
		}
		r := Check(h, Options{})
		verifyEvidence(t, h, r)
		if again := Check(again, Options{}); again.String() != r.String() {
			t.Fatalf("two checks of one history differ:\n%v\n%v", r, again)
		}
	})
}
