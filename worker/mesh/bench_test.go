package mesh

import (
	"testing"

	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
)

// echo is a handler that answers every message, or says that an answer came.
type echo struct {
	mesh *Mesh
	came chan struct{}
	// answers says that messages are answered.
	answers bool
}

func (e *echo) Swung(uint64, rdma.Outcome, uint64) { e.came <- struct{}{} }

func (e *echo) Message(from lease.Worker, kind uint8, payload []byte) error {
	if e.answers {
		return e.mesh.Send(from, kind, payload)
	}
	e.came <- struct{}{}
	return nil
}

func (e *echo) LinkDown(lease.Worker) {}

func (e *echo) LinkUp(lease.Worker) { e.came <- struct{}{} }

// couple starts two workers with echo as handlers; the second answers.
func couple(b *testing.B, open opener) *echo {
	w := newNetwork()
	var es [2]*echo
	for i := range es {
		p, err := open("")
		if err != nil {
			b.Skip(err)
		}
		es[i] = &echo{came: make(chan struct{}, 16), answers: i == 1}
		es[i].mesh, err = New(Options{Me: member(i + 1), Provider: p, Slots: 16, Members: 2, Handler: es[i], Exchanger: w})
		if err != nil {
			b.Fatal(err)
		}
		w.nodes[member(i+1)] = es[i].mesh
		b.Cleanup(func() {
			if err := es[i].mesh.Close(); err != nil {
				b.Error(err)
			}
			if err := p.Close(); err != nil {
				b.Error(err)
			}
		})
	}
	m := members(b, 1, member(1), member(2))
	for _, e := range es {
		if err := e.mesh.Install(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	for _, e := range es {
		for range 2 {
			<-e.came
		}
	}
	return es[0]
}

func onBoth(b *testing.B, bench func(b *testing.B, e *echo)) {
	b.Run("tcp", func(b *testing.B) { bench(b, couple(b, openTCP)) })
	b.Run("shm", func(b *testing.B) { bench(b, couple(b, openShm)) })
}

// BenchmarkRoundTrip is a message to the other and its answer.
func BenchmarkRoundTrip(b *testing.B) {
	onBoth(b, func(b *testing.B, e *echo) {
		payload := make([]byte, 50)
		b.ReportAllocs()
		for b.Loop() {
			if err := e.mesh.Send(2, 1, payload); err != nil {
				b.Fatal(err)
			}
			e.mesh.Flush()
			<-e.came
		}
	})
}

// BenchmarkCAS is a CAS on a word of the other.
func BenchmarkCAS(b *testing.B) {
	onBoth(b, func(b *testing.B, e *echo) {
		b.ReportAllocs()
		for b.Loop() {
			e.mesh.CAS(2, 1, 0, 0, 1)
			e.mesh.Flush()
			<-e.came
		}
	})
}

// BenchmarkCASHere is a CAS on a word of this worker.
func BenchmarkCASHere(b *testing.B) {
	onBoth(b, func(b *testing.B, e *echo) {
		b.ReportAllocs()
		for b.Loop() {
			e.mesh.CAS(1, 1, 0, 0, 1)
			e.mesh.Flush()
			<-e.came
		}
	})
}

// BenchmarkSelf is a message of a worker to itself.
func BenchmarkSelf(b *testing.B) {
	onBoth(b, func(b *testing.B, e *echo) {
		payload := make([]byte, 50)
		b.ReportAllocs()
		for b.Loop() {
			if err := e.mesh.Send(1, 1, payload); err != nil {
				b.Fatal(err)
			}
			<-e.came
		}
	})
}
