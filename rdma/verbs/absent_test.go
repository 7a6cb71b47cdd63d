//go:build !(linux && cgo && rdma)

package verbs

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/cgo/ibverbs"
	"github.com/tenure-faas/tenure/rdma"
)

func TestAbsentSaysHowToBuildIt(t *testing.T) {
	if Built || ibverbs.Built {
		t.Fatal("this test is built without the provider")
	}
	_, openErr := Open(Options{})
	_, devicesErr := Devices()
	for _, err := range []error{openErr, devicesErr} {
		if !errors.Is(err, rdma.ErrNotSupported) || !strings.Contains(err.Error(), "-tags rdma") {
			t.Errorf("the error is %v", err)
		}
	}
}
