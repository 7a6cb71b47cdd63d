package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/check"
	"github.com/tenure-faas/tenure/runtime"
)

// script is what a function is to do: its steps, as a client drew them. Reads and
// Writes are the keys that the workflow declares.
type script struct {
	A      []step   `json:"a"`
	B      []step   `json:"b,omitempty"`
	Reads  []string `json:"reads"`
	Writes []string `json:"writes"`
	Abort  bool     `json:"abort,omitempty"`
}

// step is one operation.
type step struct {
	Kind    check.OpKind `json:"kind"`
	Key     string       `json:"key"` // of a scan its prefix
	Element int64        `json:"element,omitempty"`
}

// seen is what a step returned.
type seen struct {
	List  json.RawMessage   `json:"list,omitempty"`
	Value int64             `json:"value,omitempty"`
	Keys  []string          `json:"keys,omitempty"`
	Lists []json.RawMessage `json:"lists,omitempty"`
}

// The tables: lists, counters and accounts.
const (
	lists    = "l"
	counters = "c"
	accounts = "a"
)

// function is a bundle of one handler, compiled in.
type function struct {
	run func(h runtime.Host, input []byte) ([]byte, error)
}

// Handlers implements runtime.Bundle.
func (*function) Handlers() []string { return []string{"run"} }

// Close implements runtime.Bundle.
func (*function) Close() error { return nil }

// Invoke implements runtime.Bundle.
func (f *function) Invoke(_ context.Context, c runtime.Call) ([]byte, error) {
	out, err := f.run(c.Host, c.Input)
	if err != nil {
		return nil, &base.Error{Kind: base.Aborted, Reason: err.Error()}
	}
	return out, nil
}

// natives are the functions of the cluster.
func natives() map[string]runtime.Bundle {
	return map[string]runtime.Bundle{
		"a":        player(func(s *script) []step { return s.A }),
		"b":        player(func(s *script) []step { return s.B }),
		"transfer": &function{transfer},
	}
}

// player plays the steps of a script.
func player(pick func(*script) []step) *function {
	return &function{func(h runtime.Host, input []byte) ([]byte, error) {
		var s script
		if err := json.Unmarshal(input, &s); err != nil {
			return nil, err
		}
		out := []seen{}
		for _, st := range pick(&s) {
			x, err := st.play(h)
			if err != nil {
				return nil, err
			}
			out = append(out, x)
		}
		if s.Abort {
			return nil, errors.New("drawn to abort")
		}
		return json.Marshal(out)
	}}
}

func (s step) play(h runtime.Host) (out seen, err error) {
	var v []byte
	switch s.Kind {
	case check.Read:
		out.List, _, err = h.Get(lists, s.Key)
	case check.Append:
		if v, _, err = h.Get(lists, s.Key); err == nil {
			err = h.Put(lists, s.Key, withElement(v, s.Element))
		}
	case check.Add:
		err = h.Add(counters, s.Key, s.Element)
	case check.ReadCounter:
		v, _, err = h.Get(counters, s.Key)
		out.Value = number(v)
	case check.Scan:
		var entries []runtime.Entry
		entries, err = h.Scan(lists, s.Key, 0)
		for _, e := range entries {
			out.Keys = append(out.Keys, e.Key)
			out.Lists = append(out.Lists, e.Value)
		}
	}
	return out, err
}

func withElement(list []byte, element int64) []byte {
	if len(list) == 0 {
		return fmt.Appendf(nil, "[%d]", element)
	}
	return fmt.Appendf(list[:len(list)-1:len(list)-1], ",%d]", element)
}

// number is a decimal integer, 0 for an absent one.
func number(v []byte) int64 {
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// payment is the input of transfer.
type payment struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Amount int64  `json:"amount"`
}

// transfer moves an amount between accounts that are declared or not.
func transfer(h runtime.Host, input []byte) ([]byte, error) {
	var p payment
	if err := json.Unmarshal(input, &p); err != nil {
		return nil, err
	}
	for _, x := range []struct {
		account string
		change  int64
	}{{p.From, -p.Amount}, {p.To, p.Amount}} {
		v, _, err := h.Get(accounts, x.account)
		if err != nil {
			return nil, err
		}
		if err := h.Put(accounts, x.account, strconv.AppendInt(nil, number(v)+x.change, 10)); err != nil {
			return nil, err
		}
	}
	return fmt.Appendf(nil, `{"by":%q}`, h.InvocationID()), nil
}

// workflows are what clients invoke besides single functions, by name.
var workflows = map[string]string{
	"declared": "functions:\n  a: {function: a, handler: run, reads: ['l/{reads[*]}'], writes: ['l/{writes[*]}']}\noutput: a\n",
	"parallel": "functions:\n  a: {function: a, handler: run}\n  b: {function: b, handler: run}\n",
	"pay":      "functions:\n  t: {function: transfer, handler: run, writes: ['a/{from}', 'a/{to}']}\noutput: t\n",
}
