package leases

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenure-faas/tenure/base"
	parts "github.com/tenure-faas/tenure/internal/cluster"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/leases"
	"github.com/tenure-faas/tenure/worker/service"
)

// What a turner is asked in eight bytes: one of these, and in the last four a slot.
// It answers with eight bytes.
const (
	askEcho = iota // the answer is 0
	askTurn        // takes a turn in the slot and gives it back; how long it waited, in ns
	askHome        // the number of the slot's home, 0 while that is not known
)

// turner is a worker process that takes turns when it is told to, so that the lease
// alone moves: no transaction, no disk.
func turner(ctx context.Context, leasemgrAt, name, provider string, say func(string) error) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	_, verdict := machine.Choose(ctx, machine.Demand{Provider: provider})
	opened, err := machine.Open(ctx, verdict, log)
	if err != nil {
		return err
	}
	defer opened.Close() //nolint:errcheck // the process ends
	listener, err := rpc.Listen("127.0.0.1:0", rpc.Options{})
	if err != nil {
		return err
	}
	asked, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	started := make(chan *worker.Worker, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return parts.RunWorker(ctx, parts.Worker{
			Leasemgr: leasemgrAt, Address: listener.Addr().String(), Name: name, Provider: opened, Loader: noModules{},
			Server: rpc.NewServer(rpc.Options{MaxMessage: service.MessageBytes}), Listener: listener, Logger: log,
			Started: func(w *worker.Worker) { started <- w },
			Ready:   func(string) error { return say(asked.Addr().String()) },
		})
	})
	group.Go(func() error {
		defer context.AfterFunc(ctx, func() { _ = asked.Close() })()
		conn, err := asked.Accept()
		if err != nil {
			return nil // told to stop
		}
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		return answerTurns(ctx, conn, (<-started).Leases())
	})
	return group.Wait()
}

// noModules is a catalogue's loader where nothing is deployed.
type noModules struct{ leasemgr.Loader }

func answerTurns(ctx context.Context, conn net.Conn, l *leases.Leases) error {
	var turn leases.Turn
	message := make([]byte, 8)
	for {
		if _, err := io.ReadFull(conn, message); err != nil {
			<-ctx.Done() // the benchmark is over
			return nil
		}
		s, answer := base.Slot(binary.LittleEndian.Uint32(message[4:])), int64(0)
		switch message[0] {
		case askHome:
			answer = int64(l.Explain(s).Home)
		case askTurn:
			start := time.Now()
			p := l.Part(s)
			p.Lock()
			status := p.Acquire(s, &turn, lease.Write, true)
			p.Unlock()
			if status == lease.Queued {
				<-turn.Wake()
			}
			answer = int64(time.Since(start))
			p.Lock()
			p.Release(&turn, 0)
			p.Unlock()
		}
		binary.LittleEndian.PutUint64(message, uint64(answer))
		if _, err := conn.Write(message); err != nil {
			return err
		}
	}
}

// asker is the connection to a turner.
type asker struct{ net.Conn }

func (a asker) ask(b *testing.B, what byte, s base.Slot) int64 {
	message := []byte{7: 0}
	message[0] = what
	binary.LittleEndian.PutUint32(message[4:], uint32(s))
	if err := a.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		b.Fatal(err)
	}
	if _, err := a.Write(message); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(a, message); err != nil {
		b.Fatal(err)
	}
	return int64(binary.LittleEndian.Uint64(message))
}

// BenchmarkLeaseBetweenProcesses has the lease of a slot alternate between two
// worker processes whose home is a third, without transactions: lease is from
// Acquire to Wake, echo a round trip to one of the processes over TCP. Unlike in the
// command, something happens all the time, and no processor sleeps between two
// transfers.
func BenchmarkLeaseBetweenProcesses(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, provider := range []string{"shm", "tcp"} {
		b.Run(provider, func(b *testing.B) {
			o := Options{Command: func(role string) []string {
				if role == "worker" {
					role = "turner"
				}
				return []string{self, role}
			}, Dir: b.TempDir()}
			o.EnsureDefaults()
			c, err := startCluster(b.Context(), &o, provider, 3, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := c.stop(); err != nil {
					b.Error(err)
				}
			}()
			var at [2]asker
			for i := range at {
				conn, err := net.Dial("tcp", c.workers[fmt.Sprintf("w%d", i+1)].URL)
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close() //nolint:errcheck // nothing is in it
				at[i] = asker{conn}
			}
			s := base.Slot(0)
			err = await(b.Context(), func() error {
				for s = 0; s < base.SlotCount; s += base.SlotCount / 64 {
					if at[0].ask(b, askHome, s) == 3 && at[1].ask(b, askHome, s) == 3 {
						return nil
					}
				}
				return errors.New("no slot has its home at w3")
			})
			if err != nil {
				b.Fatal(err)
			}
			alternate(b, at, s)
		})
	}
}

func alternate(b *testing.B, at [2]asker, s base.Slot) {
	moved, echoed := latencies(), latencies()
	for range 100 {
		at[0].ask(b, askTurn, s)
		at[1].ask(b, askTurn, s)
	}
	for b.Loop() {
		for _, a := range at {
			if err := moved.RecordValue(min(a.ask(b, askTurn, s), math.MaxInt32)); err != nil {
				b.Fatal(err)
			}
		}
		if err := timed(echoed, func() error { at[0].ask(b, askEcho, 0); return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(moved), "lease-us")
	b.ReportMetric(float64(moved.ValueAtQuantile(90))/1e3, "lease-p90-us")
	b.ReportMetric(median(echoed), "echo-us")
	b.ReportMetric(median(moved)/median(echoed), "lease/echo")
	b.ReportMetric(0, "ns/op") // of three round trips, says nothing
}
