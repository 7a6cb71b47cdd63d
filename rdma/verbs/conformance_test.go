//go:build linux && cgo && rdma

package verbs

import (
	"os"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/rdmatest"
)

func TestMain(m *testing.M) { rdmatest.Main(m, openNode) }

func openNode(string) (rdma.Provider, error) {
	p, err := Open(Options{})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// emulated are options for rxe in a virtual machine, where what waits for a dead
// peer takes twice as long with the suite's own. Between machines a Timeout as
// short as this could run out because the other one is not given a processor.
func emulated() rdmatest.Options {
	return rdmatest.Options{Rounds: 100, Timeout: 150 * time.Millisecond}
}

// needDevice skips the test where there is no device.
func needDevice(t *testing.T) {
	t.Helper()
	if err := openProvider(t).selfTest(); err != nil {
		t.Fatal(err)
	}
}

func TestConformanceInProcess(t *testing.T) {
	needDevice(t)
	rdmatest.Run(t, rdmatest.InProcess(openNode), emulated())
}

func TestConformanceInProcesses(t *testing.T) {
	needDevice(t)
	rdmatest.Run(t, rdmatest.Processes(), emulated())
}

// TestConformanceOnTwoMachines needs this program to run on the other machine
// with TENURE_RDMA_AGENT=HOST:PORT, and TENURE_RDMA_REMOTE=HOST:PORT here.
func TestConformanceOnTwoMachines(t *testing.T) {
	address := os.Getenv("TENURE_RDMA_REMOTE")
	if address == "" {
		t.Skip("TENURE_RDMA_REMOTE does not name an agent on another machine")
	}
	needDevice(t)
	rdmatest.Run(t, rdmatest.Remote(address), rdmatest.Options{Rounds: 100})
}
