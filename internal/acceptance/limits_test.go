package acceptance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
)

// repeat joins n texts that format makes of 0 to n-1.
func repeat(n int, format string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(parts, ",")
}

// TestLimits has the limits of the README's table that are not of sizes, each
// reached and passed by one.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := started(t, node.Options{})
	const declares = `{"functions":{"echo":{"function":"hostile","reads":["t/{items[*].id}"]}},"output":"echo"}`
	s.call(t, "PUT", "/v1/workflows/declares", declares).want(t, 201)
	long := strings.Repeat("n", 128)
	steps := func(n int) string {
		return `{"functions":{` + repeat(n, `"s%d":{"function":"hostile","handler":"echo"}`) + `}}`
	}
	exprs := func(n int) string {
		return `{"functions":{"echo":{"function":"hostile","reads":[` + repeat(n, `"t/k%d"`) + `]}}}`
	}
	ops := func(n int) string { return `{"ops":[` + repeat(n, `{"op":"get","table":"t","key":"k%d"}`) + `]}` }
	items := func(n int) string { return `{"items":[` + repeat(n, `{"id":"k%d"}`) + `]}` }
	keys := func(n int) string { return `{"keys":[` + repeat(n, `"k%d"`) + `]}` }
	for _, test := range []struct {
		method, path, body string
		status             int
		word               string
	}{
		{"PUT", "/v1/state/" + long + "/k", "", 204, ""},
		{"PUT", "/v1/state/" + long + "n/k", "", 400, "invalid-name"},
		{"PUT", "/v1/workflows/" + long, steps(64), 201, ""},
		{"PUT", "/v1/workflows/" + long + "n", steps(64), 400, "invalid-name"},
		{"PUT", "/v1/workflows/w", steps(65), 400, "invalid-workflow"},
		{"PUT", "/v1/workflows/w", exprs(64), 201, ""},
		{"PUT", "/v1/workflows/w", exprs(65), 400, "invalid-workflow"},
		{"POST", "/v1/txn", ops(1024), 200, ""},
		{"POST", "/v1/txn", ops(1025), 400, "invalid-txn"},
		{"POST", "/v1/workflows/declares/invoke", items(4096), 200, ""},
		{"POST", "/v1/workflows/declares/invoke", items(4097), 400, "invalid-input"},
		{"POST", touchPath, keys(10_000), 200, ""},
		{"POST", touchPath, keys(10_001), 422, "function-error"},
	} {
		if r := s.call(t, test.method, test.path, test.body).want(t, test.status); test.word != "" {
			r.refused(t, test.status, test.word)
		}
	}
	// Of more entries than a scan may have it gives the first.
	s.call(t, "POST", "/v1/functions/hostile/scan/invoke", "").gives(t, "10000")
	s.call(t, "PUT", "/v1/state/t/one-more", "").want(t, 204)
	s.call(t, "POST", "/v1/functions/hostile/scan/invoke", "").gives(t, "10000")
	s.serves(t)
}
