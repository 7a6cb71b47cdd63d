package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
	"github.com/tenure-faas/tenure/internal/plant"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/rpc"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/worker/service"
)

const (
	// followWait is how long a question for news may wait at the other end.
	followWait = 10 * time.Second
	// statusEvery is how often the workers are asked how they are.
	statusEvery = time.Second
	// askWait bounds a question that a person waits for.
	askWait = 2 * time.Second
	// answerWait is how long the answers of a worker that is a member no more are
	// waited for: one that left in order has sent them, one that was evicted never will.
	answerWait = 500 * time.Millisecond
)

// Fleet is the workers of a cluster of processes as a gateway sees them: it
// follows the published views, and sends an invocation to the worker that its
// first written key belongs to, as the router of workers in one process does.
type Fleet struct {
	opt    rpc.Options
	log    *slog.Logger
	leases *leasemgr.Client
	turn   atomic.Uint64
	logs   *worker.Logs
	// seating is the newest list of members; never modified.
	seating atomic.Pointer[seating]
	// staffed is closed when there is a worker for the first time.
	staffed chan struct{}
	once    sync.Once
	// dismissing waits for the answers of those who are members no more.
	dismissing sync.WaitGroup
}

// seating is the members of a view, by number.
type seating struct {
	seats []*seat
	// replaced is closed when there is a newer one.
	replaced chan struct{}
}

// seat is one member.
type seat struct {
	leasemgr.Peer
	conn   rpc.Conn
	client *service.Client
	status atomic.Pointer[service.Status] // nil until it has answered once
	stop   context.CancelFunc
	asking sync.WaitGroup

	mu        sync.Mutex // guards what follows
	calls     int        // of invocations that are under way
	dismissed bool       // and there are no new ones
	// idle is closed when it is dismissed and nothing is under way.
	idle chan struct{}
}

// begin counts a call, which the caller ends; false if the seat is dismissed, and
// then it is not in the seating any more.
func (s *seat) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dismissed {
		s.calls++
	}
	return !s.dismissed
}

func (s *seat) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls--; s.dismissed && s.calls == 0 {
		close(s.idle)
	}
}

// close lets no call begin any more, waits for the answers to those under way, not
// for long, and closes the connection: what has no answer then ends with an unknown
// outcome.
func (s *seat) close() error {
	s.mu.Lock()
	s.dismissed = true
	if s.calls == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	timer := time.NewTimer(answerWait)
	defer timer.Stop()
	select {
	case <-s.idle:
	case <-timer.C:
	}
	return s.conn.Close()
}

func newFleet(leases *leasemgr.Client, opt rpc.Options, log *slog.Logger) *Fleet {
	opt.MaxMessage = service.MessageBytes
	f := &Fleet{opt: opt, log: log, leases: leases, logs: worker.NewLogs(4096), staffed: make(chan struct{})}
	f.seating.Store(&seating{replaced: make(chan struct{})})
	return f
}

// run follows the views until ctx ends.
func (f *Fleet) run(ctx context.Context) error {
	defer func() {
		seats := f.seating.Swap(&seating{replaced: make(chan struct{})}).seats
		for _, s := range seats {
			f.dismiss(s)
		}
		f.dismissing.Wait()
	}()
	known := base.View(0)
	for ctx.Err() == nil {
		state, err := f.leases.State(ctx, known, followWait)
		if err == nil && state.View > known {
			if err = f.seat(ctx, state.Members); err == nil {
				known = state.View
				continue
			}
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		f.log.Warn("the members of the cluster are not known; those known last are used", "err", err)
		sleep(ctx, 200*time.Millisecond+rand.N(300*time.Millisecond))
	}
	return nil
}

// sleep waits, at most until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// seat takes a new list of members over. Connections to those who stay are kept.
func (f *Fleet) seat(ctx context.Context, members []leasemgr.Peer) error {
	before := f.seating.Load()
	old := before.seats
	var all []*seat
	for _, m := range members {
		if i := slices.IndexFunc(old, func(s *seat) bool { return s.Peer == m }); i >= 0 {
			all = append(all, old[i])
			continue
		}
		conn, err := rpc.Dial(m.Address, f.opt)
		if err != nil {
			f.dismissOthers(all, old)
			return fmt.Errorf("worker %s: %w", m.Name, err)
		}
		s := &seat{Peer: m, conn: conn, client: service.NewClient(conn), idle: make(chan struct{})}
		watching, stop := context.WithCancel(ctx)
		s.stop = stop
		s.asking.Go(func() { f.watch(watching, s) })
		s.asking.Go(func() { f.collect(watching, s) })
		all = append(all, s)
	}
	f.seating.Store(&seating{all, make(chan struct{})})
	close(before.replaced)
	if len(all) > 0 {
		f.once.Do(func() { close(f.staffed) })
	}
	f.dismissOthers(old, all)
	return nil
}

// dismissOthers dismisses those of a list who are not among those who stay.
func (f *Fleet) dismissOthers(list, stay []*seat) {
	for _, s := range list {
		if !slices.Contains(stay, s) {
			f.dismiss(s)
		}
	}
}

// dismiss closes the connection to a member that is none any more and is in no
// seating that callers can find; it does not wait for that.
func (f *Fleet) dismiss(s *seat) {
	s.stop()
	s.asking.Wait()
	f.dismissing.Go(func() {
		if err := s.close(); err != nil {
			f.log.Warn("close the connection to a worker", "worker", s.Name, "err", err)
		}
	})
}

// watch asks a worker how it is, again and again.
func (f *Fleet) watch(ctx context.Context, s *seat) {
	for ctx.Err() == nil {
		ask, cancel := context.WithTimeout(ctx, askWait)
		status, err := s.client.Status(ask)
		cancel()
		if err == nil {
			s.status.Store(&status)
		}
		sleep(ctx, statusEvery)
	}
}

// collect brings what functions log on a worker into the log of this gateway.
func (f *Fleet) collect(ctx context.Context, s *seat) {
	var place service.LogPlace
	for ctx.Err() == nil {
		ask, cancel := context.WithTimeout(ctx, followWait+askWait)
		lines, next, err := s.client.Logs(ask, place, followWait)
		cancel()
		if err != nil {
			sleep(ctx, statusEvery)
			continue
		}
		for _, l := range lines {
			f.logs.Add(l.LogLine)
		}
		place = next
	}
}

// Ready waits until there is a worker.
func (f *Fleet) Ready(ctx context.Context) error {
	select {
	case <-f.staffed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// at is the member at a place, the tries-th after it; nil if there is none.
func (f *Fleet) at(place uint64, tries int) *seat {
	seats := f.seating.Load().seats
	if len(seats) == 0 {
		return nil
	}
	return seats[(place+uint64(tries))%uint64(len(seats))]
}

// call is at, with a call on it begun.
func (f *Fleet) call(place uint64, tries int) *seat {
	for {
		if s := f.at(place, tries); s == nil || s.begin() {
			return s
		}
	}
}

// Execute implements gateway.Executor. A worker that says that nothing was started
// or changed because it goes, or that cannot be reached, is not asked again: the
// next one is.
func (f *Fleet) Execute(ctx context.Context, req *worker.Request) worker.Reply {
	place := PlaceOf(req, &f.turn)
	reply := worker.Reply{ID: req.ID, Err: Nobody()}
	for tries := range len(f.seating.Load().seats) {
		s := f.call(place, tries)
		if s == nil {
			break
		}
		reply = s.client.Execute(ctx, req)
		s.end()
		if reply.Err == nil || reply.Err.Kind != base.Unavailable || reply.Err.Unknown && !plant.Is(plant.RepeatUnknown) || ctx.Err() != nil {
			return reply
		}
	}
	return reply
}

// Load implements gateway.Executor.
func (f *Fleet) Load(ctx context.Context, ops []worker.Op) error {
	s := f.call(PlaceOfOps(ops), 0)
	if s == nil {
		return Nobody()
	}
	defer s.end()
	return s.client.Load(ctx, ops)
}

// Record implements gateway.Executor: any worker reads the one store.
func (f *Fleet) Record(id base.InvocationID) (worker.Record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askWait)
	defer cancel()
	s := f.at(f.turn.Add(1), 0)
	if s == nil {
		return worker.Record{}, Nobody()
	}
	return s.client.Record(ctx, id)
}

// Logs implements gateway.Executor.
func (f *Fleet) Logs(after int64) ([]worker.LogEntry, <-chan struct{}) { return f.logs.After(after) }

// Workers implements gateway.Executor: what they said last.
func (f *Fleet) Workers() []gateway.Status {
	var all []gateway.Status
	for _, s := range f.seating.Load().seats {
		g := gateway.Status{Name: s.Name, Address: s.Address, Provider: s.Provider}
		if x := s.status.Load(); x != nil {
			g.View, g.Running, g.Queued = x.View, x.Running, x.Queued
			g.Homes, g.Leases, g.LocalInvocations, g.LeasePulls = x.Homes, x.Leases, x.Local, x.Pulls
		}
		all = append(all, g)
	}
	return all
}

// Told calls do with what each worker has told last, if it has.
func (f *Fleet) Told(do func(name string, s *service.Status)) {
	for _, s := range f.seating.Load().seats {
		if x := s.status.Load(); x != nil {
			do(s.Name, x)
		}
	}
}

// Lease implements gateway.Executor: it asks every worker, and waits for what they
// say for askWait at most.
func (f *Fleet) Lease(k base.Key) gateway.LeaseInfo {
	ctx, cancel := context.WithTimeout(context.Background(), askWait)
	defer cancel()
	seats := f.seating.Load().seats
	answers := make([]lease.Knowledge, len(seats))
	silent := make([]bool, len(seats))
	var asking sync.WaitGroup
	for i, s := range seats {
		asking.Go(func() {
			l, err := s.client.Lease(ctx, k)
			if silent[i] = err != nil; err == nil && l.Among {
				answers[i] = l.Known
			}
		})
	}
	asking.Wait()
	info := gateway.LeaseInfo{Mode: "none"}
	var why []string
	for i, s := range seats {
		if silent[i] {
			why = append(why, s.Name+" does not answer")
			continue
		}
		Describe(&info, &why, s.Name, s.Member.Worker, &answers[i])
	}
	info.Why = fmt.Sprintf("slot %d; workers keep what they used last", k.Slot())
	if len(why) > 0 {
		info.Why += "; " + strings.Join(why, "; ")
	}
	return info
}

// DrainWorker implements gateway.Executor.
func (f *Fleet) DrainWorker(ctx context.Context, name string) error {
	seats := f.seating.Load().seats
	i := slices.IndexFunc(seats, func(s *seat) bool { return s.Name == name })
	switch {
	case i < 0:
		return base.Errorf(base.NotFound, "no worker %q", name)
	case len(seats) == 1:
		return base.Errorf(base.InUse, "worker %s is the last one", name)
	}
	if err := seats[i].client.Drain(ctx); err != nil {
		return err
	}
	for now := f.seating.Load(); slices.Contains(now.seats, seats[i]); now = f.seating.Load() {
		select {
		case <-now.replaced:
		case <-ctx.Done():
			return &base.Error{Kind: base.Timeout, Detail: fmt.Sprintf("worker %s takes no more invocations and leaves when its own have ended", name), Unknown: true}
		}
	}
	return nil
}
