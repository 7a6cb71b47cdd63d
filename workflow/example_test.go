package workflow_test

import (
	"fmt"

	"github.com/tenure-faas/tenure/workflow"
)

// functions is a catalogue with one deployed function.
type functions struct{}

func (functions) Handlers(function string) ([]string, bool) {
	return []string{"audit", "deposit", "withdraw"}, function == "bank"
}

// A definition becomes a workflow, which says which keys an input declares and
// which steps may run. Withdraw and audit have no order by the definition; as
// they conflict in accounts/alice for this input, audit waits.
func Example() {
	definition := `
functions:
  withdraw:
    function: bank
    writes: ["accounts/{from}"]
  deposit:
    function: bank
    writes: ["accounts/{to}"]
    after: [withdraw]
  audit:
    function: bank
    reads: ["accounts/{audited[*]}"]
output: deposit
`
	d, err := workflow.Parse([]byte(definition), workflow.YAML)
	if err != nil {
		fmt.Println(err)
		return
	}
	w, err := workflow.Compile("transfer", d, functions{})
	if err != nil {
		fmt.Println(err)
		return
	}

	uses, err := w.DeclaredKeys(nil, []byte(`{"from": "alice", "to": "bob", "audited": ["alice", "carol"]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, u := range uses {
		fmt.Printf("%s uses %v, write %v\n", w.Steps[u.Step].Name, u.Key, u.Write)
	}

	outputs := make([][]byte, len(w.Steps))
	s := w.Schedule(uses, nil)
	for ready := s.Ready(); ready != 0; {
		var next workflow.StepSet
		for i := range ready.All() { // a worker runs these in parallel
			fmt.Println("run", w.Steps[i].Name)
			outputs[i] = fmt.Appendf(nil, `{"by":%q}`, w.Steps[i].Name)
			next |= s.Done(i)
		}
		ready = next
	}
	fmt.Printf("%s\n", w.AppendOutput(nil, outputs))

	// Output:
	// withdraw uses accounts/alice, write true
	// deposit uses accounts/bob, write true
	// audit uses accounts/alice, write false
	// audit uses accounts/carol, write false
	// run withdraw
	// run deposit
	// run audit
	// {"by":"deposit"}
}
