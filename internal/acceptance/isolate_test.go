package acceptance

import (
	"strconv"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
)

const countPath = "/v1/functions/hostile/count/invoke"

// TestWarmInstances shows that an instance keeps its memory, and that a function
// which is deployed with isolate does not.
func TestWarmInstances(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	s.deploy(t, must(t, module1), "").want(t, 201)
	for n := 1; n <= 3; n++ {
		s.call(t, "POST", countPath, "").gives(t, strconv.Itoa(n))
	}
	s.deploy(t, must(t, module1), "?isolate=true").want(t, 201)
	for range 3 {
		s.call(t, "POST", countPath, "").gives(t, "1")
	}
	s.deploy(t, must(t, module1), "?isolate=true").want(t, 200)
	s.deploy(t, must(t, module1), "?isolate=false").want(t, 201)
	for n := 1; n <= 3; n++ {
		s.call(t, "POST", countPath, "").gives(t, strconv.Itoa(n))
	}
}

// TestIsolatedStep isolates one step of a workflow and not the function.
func TestIsolatedStep(t *testing.T) {
	t.Parallel()
	s := start(t, node.Options{})
	s.deploy(t, must(t, module1), "").want(t, 201)
	s.call(t, "PUT", "/v1/workflows/fresh", "functions: {count: {function: hostile, isolate: true}}\noutput: count\n").want(t, 201)
	s.call(t, "PUT", "/v1/workflows/warm", "functions: {count: {function: hostile}}\noutput: count\n").want(t, 201)
	for range 3 {
		s.call(t, "POST", "/v1/workflows/fresh/invoke", "").gives(t, "1")
	}
	s.call(t, "POST", "/v1/workflows/warm/invoke", "").gives(t, "2")
	s.call(t, "POST", "/v1/workflows/warm/invoke", "").gives(t, "3")
	s.call(t, "POST", "/v1/workflows/fresh/invoke", "").gives(t, "1")
	// A crash takes the instance and its memory with it.
	s.call(t, "POST", "/v1/workflows/warm/invoke", "").gives(t, "2")
	s.call(t, "POST", "/v1/functions/hostile/panic/invoke", "").refused(t, 422, "function-error")
	s.call(t, "POST", "/v1/workflows/warm/invoke", "").gives(t, "1")
}
