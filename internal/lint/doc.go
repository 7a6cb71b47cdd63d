// Package lint has the project's own rules, as tests over the source tree: the
// arrows between packages, purity of the cores, goroutines with an owner,
// limits on files and functions, comments.
//
// The rules are here because no linter knows them, or because they must hold
// where no linter is installed. They read the syntax only (go/parser), so that
// the whole tree takes a moment and code behind every build tag is seen. What
// needs types is golangci-lint's (.golangci.yaml).
//
// Each rule has a sample in testdata on which it must bite: a line marked
// "want" is a line that it must report, and it may report no other. A function
// over the limit stands in testdata/long_functions.txt with its length, which
// may only go down.
//
// Start reading at rules in lint_test.go, then rooms in arrows_test.go.
package lint
