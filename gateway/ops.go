package gateway

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

// opFields are the members of an operation in a transaction's body, or of a
// line of a bulk load; a missing one does not Exist.
type opFields struct {
	op, table, key, value, base64 gjson.Result
}

// readFields takes the members out of a JSON object. withOp says whether "op"
// is one of them. Unknown and repeated members are refused: a misspelt
// condition that is silently dropped changes data.
func readFields(object gjson.Result, withOp bool) (opFields, error) {
	var f opFields
	var err error
	object.ForEach(func(name, value gjson.Result) bool {
		var field *gjson.Result
		switch name.String() {
		case "op":
			if withOp {
				field = &f.op
			}
		case "table":
			field = &f.table
		case "key":
			field = &f.key
		case "value":
			field = &f.value
		case "value_base64":
			field = &f.base64
		}
		switch {
		case field == nil:
			err = base.Invalidf("", "%s: is not a member of this object", cut(name.String()))
		case field.Exists():
			err = base.Invalidf("", "%s: is given twice", name.String())
		default:
			*field = value
		}
		return err == nil
	})
	return f, err
}

// readKey returns the key that table and key name. Its strings are copies:
// the worker keeps them, and gjson's point into the whole body.
func (g *Gateway) readKey(f *opFields) (base.Key, error) {
	for _, member := range []struct {
		name  string
		value gjson.Result
	}{{"table", f.table}, {"key", f.key}} {
		if member.value.Type != gjson.String {
			return base.Key{}, base.Invalidf("", "%s: must be a string", member.name)
		}
	}
	key := base.Key{Table: strings.Clone(f.table.Str), Key: strings.Clone(f.key.Str)}
	if err := base.ValidateName("table", key.Table); err != nil {
		return key, within("table: ", err)
	}
	return key, within("key: ", g.checkKey(key))
}

// readValue returns the bytes that value or value_base64 stands for, in
// memory of their own.
func (g *Gateway) readValue(f *opFields) ([]byte, error) {
	var value []byte
	name := "value"
	switch {
	case f.value.Exists() && f.base64.Exists():
		return nil, base.Invalidf("", "value_base64: give either value or value_base64")
	case f.base64.Exists():
		name = "value_base64"
		if f.base64.Type != gjson.String {
			return nil, base.Invalidf("", "value_base64: must be a string")
		}
		var err error
		if value, err = base64.StdEncoding.Strict().DecodeString(f.base64.Str); err != nil {
			return nil, base.Invalidf("", "value_base64: %v", err)
		}
	case !f.value.Exists():
		return nil, base.Invalidf("", "value: is missing")
	case f.value.Type == gjson.String:
		value = []byte(f.value.Str)
	default:
		value = appendCompact(make([]byte, 0, len(f.value.Raw)), f.value.Raw)
	}
	return value, within(name+": ", g.checkValue(value))
}

// checkValue applies the limit of a value.
func (g *Gateway) checkValue(value []byte) error {
	if len(value) > g.opt.MaxValueBytes {
		return base.Errorf(base.TooLarge, "the value has %d bytes, the limit is %d", len(value), g.opt.MaxValueBytes)
	}
	return nil
}

// readOp reads one operation of a transaction.
func (g *Gateway) readOp(object gjson.Result) (worker.Op, error) {
	var op worker.Op
	f, err := readFields(object, true)
	if err != nil {
		return op, err
	}
	if op.Kind, err = opKind(f.op); err != nil {
		return op, err
	}
	if op.Key, err = g.readKey(&f); err != nil {
		return op, err
	}
	if f.base64.Exists() && op.Kind != worker.OpPut {
		return op, base.Invalidf("", "value_base64: only put takes it")
	}
	switch op.Kind {
	case worker.OpPut:
		op.Value, err = g.readValue(&f)
	case worker.OpAdd:
		op.Value, err = readDelta(f.value)
	case worker.OpAppend:
		if !f.value.Exists() {
			return op, base.Invalidf("", "value: is missing")
		}
		// An element stays JSON: a string keeps its quotes.
		op.Value = appendCompact(make([]byte, 0, len(f.value.Raw)), f.value.Raw)
		err = within("value: ", g.checkValue(op.Value))
	case worker.OpGet, worker.OpDelete:
		if f.value.Exists() {
			err = base.Invalidf("", "value: %s takes none", f.op.Str)
		}
	}
	return op, err
}

// opKind reads an operation's name.
func opKind(name gjson.Result) (worker.OpKind, error) {
	if name.Type == gjson.String {
		switch name.Str {
		case "get":
			return worker.OpGet, nil
		case "put":
			return worker.OpPut, nil
		case "delete":
			return worker.OpDelete, nil
		case "add":
			return worker.OpAdd, nil
		case "append":
			return worker.OpAppend, nil
		}
	}
	return 0, base.Invalidf("", "op: must be get, put, delete, add or append")
}

// readDelta reads the value of an add: a decimal int64, as a JSON number or,
// for clients whose numbers are floating point, a string.
func readDelta(value gjson.Result) ([]byte, error) {
	text := value.Raw
	if value.Type == gjson.String {
		text = value.Str
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || value.Type != gjson.String && value.Type != gjson.Number {
		return nil, base.Invalidf("", "value: must be a decimal integer between -2^63 and 2^63-1, as a number or a string")
	}
	return strconv.AppendInt(nil, n, 10), nil
}

// appendCompact appends valid JSON without the space between its tokens.
func appendCompact(dst []byte, text string) []byte {
	inString := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString && c == '\\':
			dst = append(dst, c)
			i++
			c = text[i] // Valid JSON has a byte after a backslash.
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// within puts a place before the detail of an error.
func within(place string, err error) error {
	if err == nil {
		return nil
	}
	e := *asError(err)
	e.Detail = place + e.Detail
	return &e
}

// inBody is within for an error of a member of a body: an Invalid one becomes
// invalid-<subject>, whatever part it was about.
func inBody(subject, place string, err error) error {
	e := *asError(within(place, err))
	if e.Kind == base.Invalid {
		e.Subject = subject
	}
	return &e
}

// txnName is the name of transactions in records and metrics.
const txnName = "txn"

// txn is POST /v1/txn.
func (g *Gateway) txn(c *call) error {
	buf := g.buffers.get()
	defer g.buffers.put(buf)
	body, err := c.readBody(*buf, g.opt.MaxBodyBytes)
	if err != nil {
		return err
	}
	*buf = body
	ops, err := g.parseTxn(body)
	if err != nil {
		return err
	}
	reply, err := g.execute(c, &worker.Request{ID: c.id, Name: txnName, Ops: ops}, 0, body)
	if err != nil {
		return err
	}
	c.write(http.StatusOK, typeJSON, reply.Output)
	return nil
}

// parseTxn reads the body of a transaction. Nothing in the result points into
// body. Errors are invalid-txn, or TooLarge, and name the place.
func (g *Gateway) parseTxn(body []byte) ([]worker.Op, error) {
	const subject = "txn"
	if err := checkJSON(subject, body); err != nil {
		return nil, err
	}
	var list gjson.Result
	var err error
	root := gjson.ParseBytes(body)
	if !root.IsObject() {
		return nil, base.Invalidf(subject, `the body must be an object {"ops": [...]}`)
	}
	root.ForEach(func(name, value gjson.Result) bool {
		switch {
		case name.String() != "ops":
			err = base.Invalidf(subject, "%q is not a member of the body", cut(name.String()))
		case list.Exists():
			err = base.Invalidf(subject, "ops is given twice")
		case !value.IsArray():
			err = base.Invalidf(subject, "ops: must be an array")
		default:
			list = value
		}
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	var ops []worker.Op
	list.ForEach(func(_, value gjson.Result) bool {
		if len(ops) == g.opt.MaxOps {
			err = base.Invalidf(subject, "ops: there are more than %d", g.opt.MaxOps)
			return false
		}
		if !value.IsObject() {
			err = base.Invalidf(subject, "ops[%d]: must be an object", len(ops))
			return false
		}
		var op worker.Op
		if op, err = g.readOp(value); err != nil {
			err = inBody(subject, fmt.Sprintf("ops[%d].", len(ops)), err)
			return false
		}
		ops = append(ops, op)
		return true
	})
	if err == nil && len(ops) == 0 {
		err = base.Invalidf(subject, "ops: there is none")
	}
	return ops, err
}
