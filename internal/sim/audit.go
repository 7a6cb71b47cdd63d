package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/tenure-faas/tenure/internal/check"
)

// operations are those of a script with what they saw, in the form that their
// request had: see load.one. The body is that of the answer, if it is known.
func operations(s *script, form int, trusted bool, body []byte) ([]check.Op, error) {
	all := [][]step{s.A, s.B}
	results := make([][]seen, 2)
	if trusted {
		var err error
		switch {
		case form < 4:
			results[0], err = resultsOf(s.A, body)
		case form == 7:
			var both struct{ A, B []seen }
			err = json.Unmarshal(body, &both)
			results[0], results[1] = both.A, both.B
		default:
			err = json.Unmarshal(body, &results[0])
		}
		if err != nil {
			return nil, err
		}
	}
	var ops []check.Op
	for i, steps := range all {
		if trusted && len(results[i]) != len(steps) {
			return nil, errors.New("it has another number of results than steps")
		}
		for j, st := range steps {
			var x seen
			if trusted {
				x = results[i][j]
			}
			op, err := st.operation(&x)
			if err != nil {
				return nil, err
			}
			ops = append(ops, op)
		}
	}
	return ops, nil
}

// resultsOf reads the answer of /v1/txn.
func resultsOf(steps []step, body []byte) ([]seen, error) {
	var answer struct {
		Results []struct {
			Found bool
			Value string
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	var out []seen
	for i, r := range answer.Results {
		var x seen
		switch {
		case i >= len(steps) || !r.Found:
		case steps[i].Kind == check.Read:
			x.List = json.RawMessage(r.Value)
		case steps[i].Kind == check.ReadCounter:
			x.Value = number([]byte(r.Value))
		}
		out = append(out, x)
	}
	return out, nil
}

// operation is a step with what it saw.
func (s step) operation(x *seen) (check.Op, error) {
	op := check.Op{Kind: s.Kind, Key: s.Key, Element: s.Element}
	var err error
	switch s.Kind {
	case check.Read:
		op.List, err = listOf(x.List)
	case check.Add:
		op.Element, op.Delta = 0, s.Element
	case check.ReadCounter:
		op.Value = x.Value
	case check.Scan:
		op.Key, op.Prefix = "", s.Key
		for i, k := range x.Keys {
			var l []int64
			if l, err = listOf(x.Lists[i]); err != nil {
				break
			}
			op.Found = append(op.Found, check.Found{Key: k, List: l})
		}
	case check.Append:
	}
	return op, err
}

func listOf(raw []byte) (list []int64, err error) {
	if len(raw) > 0 {
		err = json.Unmarshal(raw, &list)
	}
	return list, err
}

// audit checks the books when the faults are over: the history with a last read of
// everything, the sum of the accounts, and that every answer under a key is given
// again.
func (l *load) audit() {
	rng := chanceOf(l.w.options.Seed, streamClients)
	steps := l.finals()
	for i := range accountCount {
		steps = append(steps, step{Kind: check.Read, Key: fmt.Sprint("account", i)})
	}
	body := strings.ReplaceAll(opsOf(steps), `"table":"l","key":"account`, `"table":"a","key":"a`)
	t := check.Txn{Call: l.w.now().Nanoseconds(), Outcome: check.OK}
	a, ok := l.insist(rng, request{method: "POST", path: "/v1/txn", body: body, key: "last"})
	if !ok {
		return
	}
	t.Return = l.w.now().Nanoseconds()
	results, err := resultsOf(steps, a.body)
	if err != nil || a.status != http.StatusOK || len(results) != len(steps) {
		l.w.fail("the last read: %d %s", a.status, a.body)
		return
	}
	sum := int64(0)
	for i, x := range results {
		if strings.HasPrefix(steps[i].Key, "account") {
			sum += number(x.List)
			continue
		}
		op, err := steps[i].operation(&x)
		if err != nil {
			l.w.fail("the last read: %v in %s", err, a.body)
			return
		}
		t.Ops = append(t.Ops, op)
	}
	l.keep(t)
	if sum != accountCount*balance {
		l.w.fail("the accounts have %d together, it should be %d", sum, accountCount*balance)
	}
	for _, x := range l.answered {
		if a, ok := l.insist(rng, x.request); ok && (a.status != http.StatusOK || !a.replayed || string(a.body) != x.answer) {
			l.w.fail("%s with key %s answered %s, and now: %d %s, replayed: %t", x.path, x.key, x.answer, a.status, a.body, a.replayed)
		}
	}
	report := check.Check(l.history, check.Options{MaxPerKind: 2})
	if len(report.Anomalies) > 0 {
		l.w.fail("the history is not strictly serializable:\n%v", report)
	}
	l.w.count("replayed answers", int64(len(l.answered)))
	l.w.count("transactions in the history", int64(len(l.history)))
}
