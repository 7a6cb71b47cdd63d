package workflow

import (
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// Workflow is a definition that was checked against the deployed functions
// and is ready to run. It is immutable and safe for concurrent use; callers
// may not modify what its fields point to. Steps are named by their index in
// Steps everywhere: in Order, Output, KeyUse and Schedule.
type Workflow struct {
	// Name is the workflow's name; "function/handler" for Single.
	Name string
	// Steps are the steps in the order in which the definition has them.
	Steps []Step
	// Order has every step after its predecessors, and otherwise in the
	// definition's order. It is the only such order when Linear.
	Order []int
	// Output is the step whose output is the workflow's; -1 means an object of
	// all outputs.
	Output int
	// Timeout bounds an invocation; zero: the definition does not say.
	Timeout time.Duration
	// Linear says that every two steps are ordered, so that no two may ever
	// run in parallel.
	Linear bool

	before []StepSet // by step: all steps before it, transitively closed
	roots  []string  // the input fields that expressions begin with, sorted
}

// Step is one step of a Workflow.
type Step struct {
	// Name is unique within the workflow.
	Name string
	// Function and Handler say what runs.
	Function, Handler string
	// Isolate asks for an instance whose memory no earlier invocation touched.
	Isolate bool
	// After are the steps that `after` names, in its order: the direct
	// predecessors only. Workflow.Ordered knows them all.
	After []int
	// Reads and Writes are the declared keys, in the order written.
	Reads, Writes []KeyExpr
}

// Single returns one handler as a workflow of its own: one step, which
// declares no keys and whose output is the workflow's. The caller has checked
// that function and handler exist.
func Single(function, handler string) *Workflow {
	return &Workflow{
		Name:   function + "/" + handler,
		Steps:  []Step{{Name: handler, Function: function, Handler: handler}},
		Order:  []int{0},
		Linear: true,
		before: make([]StepSet, 1),
	}
}

// Index returns the index of the step with a name.
func (w *Workflow) Index(step string) (int, bool) {
	i := slices.IndexFunc(w.Steps, func(s Step) bool { return s.Name == step })
	return i, i >= 0
}

// Ordered reports whether the definition orders step a before step b, directly
// or through other steps. Conflicts of one attempt do not count.
func (w *Workflow) Ordered(a, b int) bool { return w.before[b].Has(a) }

// AppendOutput appends the workflow's output to dst, given the outputs of all
// steps by index. The output of a single step is appended as it is. The object
// of all outputs has one field for each step, in the definition's order; there
// an output that is not valid JSON becomes a JSON string (bytes that are not
// UTF-8 as U+FFFD), and an empty one null.
func (w *Workflow) AppendOutput(dst []byte, outputs [][]byte) []byte {
	if w.Output >= 0 {
		return append(dst, outputs[w.Output]...)
	}
	dst = append(dst, '{')
	for i := range w.Steps {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = gjson.AppendJSONString(dst, w.Steps[i].Name)
		dst = append(dst, ':')
		dst = appendValue(dst, outputs[i])
	}
	return append(dst, '}')
}

func appendValue(dst, value []byte) []byte {
	switch {
	case len(value) == 0:
		return append(dst, "null"...)
	// encoding/json, unlike gjson, bounds the depth that it follows.
	case json.Valid(value) && utf8.Valid(value):
		return append(dst, value...)
	default:
		return gjson.AppendJSONString(dst, string(value))
	}
}
