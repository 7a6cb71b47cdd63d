package p

import "errors"

var (
	count   int
	names   = map[string]int{}
	current struct{ n int }
	errGone = errors.New("gone")
)

const limit = 3

func bad(i int) {
	count++               // want variable count
	count = i             // want variable count
	names["a"] = 1        // want variable names
	current.n += 2        // want variable current
	delete(names, "a")    // want variable names
	clear(names)          // want variable names
	other = errGone       // want variable other
	for count = range 3 { // want variable count
	}
}

func shadowed() {
	count := 0
	count++
	var names = map[string]int{}
	names["a"] = count
}

func parameter(current *struct{ n int }) { current.n = limit }

type t struct{ count int }

func (x *t) field() { x.count++ }

func read() (int, error) { return count + names["a"], errGone }
