package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// encodingVersion is written into every encoded history. Raise it when the meaning of a field changes.
const encodingVersion = 1

// The encoded form spells kinds and outcomes as words and leaves out what an operation does not use, so that a saved
// history can be read, and cut down, by hand.
type (
	jsonHistory struct {
		Version int       `json:"version"`
		Txns    []jsonTxn `json:"txns"`
	}
	jsonTxn struct {
		ID      int      `json:"id"`
		Client  int      `json:"client"`
		Call    int64    `json:"call"`
		Return  int64    `json:"return"`
		Outcome string   `json:"outcome"`
		Ops     []jsonOp `json:"ops"`
	}
	jsonOp struct {
		Op        string      `json:"op"`
		Key       *string     `json:"key,omitempty"`
		Element   *int64      `json:"element,omitempty"`
		List      []int64     `json:"list,omitempty"`
		Delta     *int64      `json:"delta,omitempty"`
		Value     *int64      `json:"value,omitempty"`
		Prefix    *string     `json:"prefix,omitempty"`
		Found     []jsonFound `json:"found,omitempty"`
		Truncated bool        `json:"truncated,omitempty"`
	}
	jsonFound struct {
		Key  string  `json:"key"`
		List []int64 `json:"list,omitempty"`
	}
)

// EncodeHistory renders h as JSON, to be saved beside a failed run and given to DecodeHistory later. Fields that an
// operation's kind does not use are dropped. The error names a transaction that JSON cannot hold: one without outcome,
// with an operation without kind, or with a key that is not UTF-8.
func EncodeHistory(h History) ([]byte, error) {
	out := jsonHistory{Version: encodingVersion, Txns: make([]jsonTxn, 0, len(h))}
	for i := range h {
		t := &h[i]
		if t.Outcome < OK || t.Outcome > Unknown {
			return nil, fmt.Errorf("encode history: T%d has no outcome; set one", t.ID)
		}
		x := jsonTxn{ID: t.ID, Client: t.Client, Call: t.Call, Return: t.Return, Outcome: t.Outcome.String()}
		x.Ops = make([]jsonOp, 0, len(t.Ops))
		for j := range t.Ops {
			op, err := encodeOp(&t.Ops[j])
			if err != nil {
				return nil, fmt.Errorf("encode history: T%d, operation %d: %w", t.ID, j, err)
			}
			x.Ops = append(x.Ops, op)
		}
		out.Txns = append(out.Txns, x)
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode history: %w", err)
	}
	return append(data, '\n'), nil
}

func encodeOp(op *Op) (jsonOp, error) {
	out := jsonOp{Op: op.Kind.String()}
	names := []string{op.Key}
	if op.Kind == Scan {
		names[0] = op.Prefix
	} else {
		out.Key = &op.Key
	}
	switch op.Kind {
	case Append:
		out.Element = &op.Element
	case Read:
		out.List = op.List
	case Add:
		out.Delta = &op.Delta
	case ReadCounter:
		out.Value = &op.Value
	case Scan:
		out.Prefix, out.Truncated = &op.Prefix, op.Truncated
		for _, f := range op.Found {
			names = append(names, f.Key)
			out.Found = append(out.Found, jsonFound(f))
		}
	default:
		return jsonOp{}, fmt.Errorf("unknown kind %v; set one", op.Kind)
	}
	for _, name := range names {
		if !utf8.ValidString(name) {
			return jsonOp{}, fmt.Errorf("key %q is not UTF-8, which JSON would change silently; record it escaped", name)
		}
	}
	return out, nil
}

// DecodeHistory is the inverse of EncodeHistory. It refuses unknown fields, fields that do not belong to an operation's
// kind, missing ones, and anything after the history, because a field that is misspelled by hand would otherwise weaken
// the check silently. It does not apply the rules of [History]; Check does.
func DecodeHistory(data []byte) (History, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var in jsonHistory
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf("decode history: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode history: something follows the history; keep one history per file")
	}
	if in.Version != encodingVersion {
		return nil, fmt.Errorf("decode history: version %d, this program reads version %d", in.Version, encodingVersion)
	}
	h := make(History, 0, len(in.Txns))
	for i := range in.Txns {
		x := &in.Txns[i]
		t := Txn{ID: x.ID, Client: x.Client, Call: x.Call, Return: x.Return}
		for o := OK; o <= Unknown; o++ {
			if o.String() == x.Outcome {
				t.Outcome = o
			}
		}
		if t.Outcome == 0 {
			return nil, fmt.Errorf("decode history: T%d has outcome %q; use ok, failed or unknown", x.ID, x.Outcome)
		}
		for j := range x.Ops {
			op, err := decodeOp(&x.Ops[j])
			if err != nil {
				return nil, fmt.Errorf("decode history: T%d, operation %d: %w", x.ID, j, err)
			}
			t.Ops = append(t.Ops, op)
		}
		h = append(h, t)
	}
	return h, nil
}

// decodeOp takes the fields that belong to the kind out of x, and refuses what is then left.
func decodeOp(x *jsonOp) (Op, error) {
	rest := *x
	rest.Op = ""
	op := Op{}
	missing := ""
	text := func(name string, dst *string, src **string) {
		if *src == nil {
			missing = name
			return
		}
		*dst, *src = **src, nil
	}
	number := func(name string, dst *int64, src **int64) {
		if *src == nil {
			missing = name
			return
		}
		*dst, *src = **src, nil
	}
	for k := Append; k <= Scan; k++ {
		if k.String() == x.Op {
			op.Kind = k
		}
	}
	if op.Kind != Scan {
		text("key", &op.Key, &rest.Key)
	}
	switch op.Kind {
	case Append:
		number("element", &op.Element, &rest.Element)
	case Read:
		op.List, rest.List = decodeList(x.List), nil
	case Add:
		number("delta", &op.Delta, &rest.Delta)
	case ReadCounter:
		number("value", &op.Value, &rest.Value)
	case Scan:
		text("prefix", &op.Prefix, &rest.Prefix)
		op.Truncated, rest.Truncated = x.Truncated, false
		for _, f := range x.Found {
			op.Found = append(op.Found, Found{Key: f.Key, List: decodeList(f.List)})
		}
		rest.Found = nil
	default:
		return Op{}, fmt.Errorf("unknown operation %q; use append, read, add, readCounter or scan", x.Op)
	}
	if missing != "" {
		return Op{}, fmt.Errorf("%s without %q; add the field", x.Op, missing)
	}
	if rest.Key != nil || rest.Element != nil || rest.List != nil || rest.Delta != nil || rest.Value != nil ||
		rest.Prefix != nil || rest.Found != nil || rest.Truncated {
		return Op{}, fmt.Errorf("%s with a field of another kind of operation; remove the field", x.Op)
	}
	return op, nil
}

// decodeList makes the two spellings of an absent list one.
func decodeList(list []int64) []int64 {
	if len(list) == 0 {
		return nil
	}
	return list
}
