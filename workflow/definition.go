package workflow

import (
	"cmp"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// Limits of a definition and of what an invocation may declare.
const (
	// MaxDefinitionBytes bounds the text of a definition.
	MaxDefinitionBytes = 256 << 10
	// MaxSteps bounds the steps of a workflow; a StepSet has one bit for each.
	MaxSteps = 64
	// MaxStepKeyExprs bounds the key expressions of one step, reads and
	// writes together.
	MaxStepKeyExprs = 64
	// MaxKeyExprBytes bounds one key expression.
	MaxKeyExprBytes = 1024
	// MaxKeys bounds the keys that one invocation may declare.
	MaxKeys = 4096
	// MaxTimeout bounds the timeout of a definition.
	MaxTimeout = 10 * time.Minute
)

// Format is the notation of a definition.
type Format uint8

// The formats.
const (
	// JSON is RFC 8259 text.
	JSON Format = iota
	// YAML is YAML 1.2 without anchors, aliases, tags and merge keys, one
	// document.
	YAML
)

// Definition is a workflow as its author wrote it, with the defaults filled in
// by Parse, so that definitions of one meaning are equal.
type Definition struct {
	// Kind is the programming model; empty means KindTransaction.
	Kind string
	// Steps are the steps in the order written.
	Steps []StepDefinition
	// Output names the step whose output is the answer; empty means an object
	// with the output of every step.
	Output string
	// Timeout bounds an invocation, in (0, MaxTimeout]; zero: not given.
	Timeout time.Duration
}

// The kinds of a workflow. Compile refuses all but KindTransaction.
const (
	KindTransaction = "transaction"
	KindSaga        = "saga"
	KindCausal      = "causal"
)

// StepDefinition is one entry of `functions`.
type StepDefinition struct {
	// Name is the step's name, unique within the definition.
	Name string
	// Function is the deployed bundle that has the handler.
	Function string
	// Handler is the handler to run; empty means Name.
	Handler string
	// Reads and Writes are key expressions (see KeyExpr).
	Reads, Writes []string
	// After names the steps that must end before this one starts.
	After []string
	// Isolate asks for an instance whose memory no earlier invocation touched.
	Isolate bool
}

// Parse reads a definition and checks all that can be checked without knowing
// which functions are deployed and without compiling key expressions. It is
// strict: unknown fields, duplicate fields or steps, trailing text and
// anything over a limit are refused. Every error is a *base.Error of kind
// Invalid with subject "workflow" whose detail begins with the place, for
// example functions.withdraw.writes[0]. data is not kept.
func Parse(data []byte, f Format) (*Definition, error) {
	if len(data) > MaxDefinitionBytes {
		return nil, invalid("definition", "has %d bytes, the limit is %d", len(data), MaxDefinitionBytes)
	}
	if !utf8.Valid(data) {
		return nil, invalid("definition", "is not valid UTF-8")
	}
	read := readJSON
	if f == YAML {
		read = readYAML
	}
	root, err := read(data)
	if err != nil {
		return nil, err
	}
	d, err := decode(root)
	if err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

// MarshalJSON returns the canonical form: one line of JSON with the steps in
// order, which Parse reads back as an equal Definition if d came from Parse.
func (d Definition) MarshalJSON() ([]byte, error) {
	functions := []byte{'{'}
	for i, s := range d.Steps {
		step, err := json.Marshal(stepJSON{s.Function, cmp.Or(s.Handler, s.Name), s.Reads, s.Writes, s.After, s.Isolate})
		if err != nil {
			return nil, err
		}
		if i > 0 {
			functions = append(functions, ',')
		}
		functions = gjson.AppendJSONString(functions, s.Name)
		functions = append(functions, ':')
		functions = append(functions, step...)
	}
	out := definitionJSON{
		Kind:      cmp.Or(d.Kind, KindTransaction),
		Functions: append(functions, '}'),
		Output:    d.Output,
	}
	if d.Timeout != 0 {
		out.Timeout = d.Timeout.String()
	}
	return json.Marshal(out)
}

// definitionJSON and stepJSON give the canonical form its fields and their
// order.
type definitionJSON struct {
	Kind      string          `json:"kind"`
	Functions json.RawMessage `json:"functions"`
	Output    string          `json:"output,omitempty"`
	Timeout   string          `json:"timeout,omitempty"`
}

type stepJSON struct {
	Function string   `json:"function"`
	Handler  string   `json:"handler"`
	Reads    []string `json:"reads,omitempty"`
	Writes   []string `json:"writes,omitempty"`
	After    []string `json:"after,omitempty"`
	Isolate  bool     `json:"isolate,omitempty"`
}
