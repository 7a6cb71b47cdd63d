package shm

import (
	"os"
	"testing"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/rdmatest"
)

// directoryVariable tells agents, which may be killed, where to leave their
// sockets.
const directoryVariable = "TENURE_SHM_TEST_DIRECTORY"

func open(string) (rdma.Provider, error) {
	return Open(Options{Directory: os.Getenv(directoryVariable)})
}

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(childMain())
	}
	rdmatest.Main(m, open)
}

func TestConformance(t *testing.T) {
	t.Setenv(directoryVariable, directory(t))
	t.Run("InProcess", func(t *testing.T) { rdmatest.Run(t, rdmatest.InProcess(open), rdmatest.Options{}) })
	t.Run("Processes", func(t *testing.T) { rdmatest.Run(t, rdmatest.Processes(), rdmatest.Options{}) })
}
