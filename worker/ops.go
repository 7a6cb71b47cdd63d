package worker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/txn"
)

// runOps executes the request's operations in order. Every key is locked
// already, so none of them waits.
func (inv *invocation) runOps() {
	inv.results = inv.results[:0]
	for i := range inv.req.Ops {
		r, err := inv.runOp(&inv.req.Ops[i])
		if err != nil {
			e := *asError(err)
			if len(inv.req.Ops) > 1 {
				e.Detail = "ops[" + strconv.Itoa(i) + "]: " + e.Detail
			}
			inv.stop(&e)
			return
		}
		inv.results = append(inv.results, r)
	}
}

func (inv *invocation) runOp(op *Op) (OpResult, error) {
	a := inv.set.Find(op.Key)
	if err := inv.load(a); err != nil {
		return OpResult{}, err
	}
	before, present := a.Current()
	if err := op.check(a, present, inv.versionOf(a)); err != nil {
		return OpResult{}, err
	}
	switch op.Kind {
	case OpGet:
		return OpResult{Value: before, Found: present, Version: inv.versionOf(a)}, nil
	case OpDelete:
		a.Effect, a.Value = txn.Delete, nil
		return OpResult{Version: inv.versionOf(a)}, nil
	case OpPut:
		return inv.putOp(a, op.Value)
	case OpAdd:
		delta, err := strconv.ParseInt(string(op.Value), 10, 64)
		if err != nil {
			return OpResult{}, base.Invalidf("txn", "value %q of an add is not a decimal int64", op.Value)
		}
		sum, err := txn.AddDecimal(before, present, delta)
		if err != nil {
			return OpResult{}, err
		}
		return inv.putOp(a, appendDecimal(nil, sum))
	case OpAppend:
		list, err := appendElement(before, present, op.Value)
		if err != nil {
			return OpResult{}, err
		}
		return inv.putOp(a, list)
	default:
		return OpResult{}, base.Invalidf("txn", "operation %d is not known", op.Kind)
	}
}

// putOp buffers a write whose bytes belong to the transaction from now on.
func (inv *invocation) putOp(a *txn.Access, value []byte) (OpResult, error) {
	if err := inv.roomFor(a.Key.Table, a.Key.Key, len(value)); err != nil {
		return OpResult{}, err
	}
	a.Effect, a.Value = txn.Put, value
	return OpResult{Value: value, Found: true, Version: inv.versionOf(a)}, nil
}

// versionOf is the version the key will have when this transaction commits.
func (inv *invocation) versionOf(a *txn.Access) base.Version {
	present, version := a.Noted()
	if a.Effect == txn.None || a.Effect == txn.Delete && !present {
		return version
	}
	return version + 1
}

// check tests the operation's conditions.
func (op *Op) check(a *txn.Access, present bool, version base.Version) error {
	switch {
	case op.IfAbsent && present:
		return base.Errorf(base.Precondition, "%v is present with version %d and If-None-Match asks for it to be absent", a.Key, version)
	case (op.IfPresent || op.IfMatch != nil) && !present:
		return base.Errorf(base.Precondition, "%v is absent and If-Match asks for it to be present", a.Key)
	case op.IfMatch != nil && *op.IfMatch != version:
		return base.Errorf(base.Precondition, "%v has version %d and If-Match asks for %d", a.Key, version, *op.IfMatch)
	}
	return nil
}

// appendElement adds one JSON element to a JSON array; an absent value is an
// empty array. The element has been checked to be JSON by the caller.
func appendElement(list []byte, present bool, element []byte) ([]byte, error) {
	list = bytes.TrimSpace(list)
	if !present {
		list = []byte("[]")
	}
	if len(list) < 2 || list[0] != '[' || list[len(list)-1] != ']' {
		return nil, base.Errorf(base.FunctionError, "append needs a value that is a JSON array, and the stored value is not")
	}
	body := bytes.TrimSpace(list[1 : len(list)-1])
	out := make([]byte, 0, len(list)+len(element)+1)
	out = append(out, '[')
	out = append(out, body...)
	if len(body) > 0 {
		out = append(out, ',')
	}
	out = append(out, element...)
	return append(out, ']'), nil
}

// appendResults appends the JSON answer of a list of operations.
func appendResults(dst []byte, results []OpResult) []byte {
	dst = append(dst, `{"results":[`...)
	for i, r := range results {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		switch {
		case !r.Found:
			dst = append(dst, `"value":null,`...)
		case utf8.Valid(r.Value):
			dst = append(dst, `"value":`...)
			dst = appendJSONString(dst, r.Value)
			dst = append(dst, ',')
		default:
			dst = append(dst, `"value_base64":"`...)
			dst = base64.StdEncoding.AppendEncode(dst, r.Value)
			dst = append(dst, `",`...)
		}
		dst = append(dst, `"found":`...)
		dst = strconv.AppendBool(dst, r.Found)
		dst = append(dst, `,"version":`...)
		dst = strconv.AppendUint(dst, uint64(r.Version), 10)
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}

// appendJSONString appends s, which is valid UTF-8, as a JSON string.
func appendJSONString(dst, s []byte) []byte {
	for _, c := range s {
		if c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(string(s))
			if err != nil {
				panic("worker: a string does not marshal: " + err.Error())
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
