package wire

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/rdma/internal/handle"
)

// TestMain runs the tests and fails if they leave counters or goroutines behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if open, leaked := handle.Counts(); len(open)+len(leaked) > 0 {
		fmt.Fprintf(os.Stderr, "handles left open: %v, lost: %v\n", open, leaked)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
