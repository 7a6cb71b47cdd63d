package tcp

import (
	"testing"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/rdmatest"
)

func open(string) (rdma.Provider, error) {
	p, err := Open(Options{})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func TestMain(m *testing.M) { rdmatest.Main(m, open) }

func TestConformance(t *testing.T) {
	t.Run("one process", func(t *testing.T) { rdmatest.Run(t, rdmatest.InProcess(open), rdmatest.Options{}) })
	t.Run("processes", func(t *testing.T) { rdmatest.Run(t, rdmatest.Processes(), rdmatest.Options{}) })
}
