package remote

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// commitStream is the server's end of a member's stream.
type commitStream = grpc.BidiStreamingServer[rpcpb.StoreCommitRequest, rpcpb.StoreCommitReply]

// commits is one stream of a member. The handler's goroutine receives and
// applies, a second one waits for the disk, a third one answers: a member that
// must stop hears of it also while the disk is slow.
type commits struct {
	member Member
	closed territory
	// refusing says that the batch behind the last applied one was refused by
	// the seal and has not come again; guarded by the session's order.
	refusing bool
	// arrived tells the goroutine that waits for the disk that batches came,
	// due the answering one that there is something to say; capacity 1: one
	// token is enough, since both look at everything.
	arrived, due chan struct{}

	mu sync.Mutex
	// repeat says that a batch came again, and so that the last acknowledgement
	// may be lost; guarded by mu, as what follows.
	repeat bool
	// What is to be answered: the durable number (0: nothing new), a batch that
	// was refused, why the stream has failed for good.
	durable base.Number
	refused *rpcpb.StoreRefused
	fault   error
}

func newCommits(m Member, closed territory) *commits {
	return &commits{member: m, closed: closed, arrived: make(chan struct{}, 1), due: make(chan struct{}, 1)}
}

func nudge(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// repeated has the durable number answered even if it is not new.
func (c *commits) repeated() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.repeat = true
}

func (c *commits) takeRepeat() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	repeat := c.repeat
	c.repeat = false
	return repeat
}

// say changes what is to be answered.
func (c *commits) say(change func()) {
	c.mu.Lock()
	change()
	c.mu.Unlock()
	nudge(c.due)
}

func (c *commits) refuse(n base.Number, seal base.View) {
	c.say(func() { c.refused = &rpcpb.StoreRefused{Number: uint64(n), Seal: uint32(seal)} })
}

// fail has the client told that it must stop.
func (c *commits) fail(err error) { c.say(func() { c.fault = err }) }

// answers takes what is to be answered.
func (c *commits) answers() (replies []*rpcpb.StoreCommitReply, fault error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil {
		return []*rpcpb.StoreCommitReply{faultReply(c.fault)}, c.fault
	}
	if c.refused != nil {
		replies = append(replies, &rpcpb.StoreCommitReply{Reply: &rpcpb.StoreCommitReply_Refused{Refused: c.refused}})
	}
	if c.durable != 0 {
		acknowledged := &rpcpb.StoreAcknowledged{Durable: uint64(c.durable)}
		replies = append(replies, &rpcpb.StoreCommitReply{Reply: &rpcpb.StoreCommitReply_Acknowledged{Acknowledged: acknowledged}})
	}
	c.refused, c.durable = nil, 0
	return replies, nil
}

// Commit implements the service.
func (s *server) Commit(stream commitStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	m, err := memberFrom(first.GetHello())
	if err != nil {
		return stream.Send(faultReply(err))
	}
	c := newCommits(m, s.workers)
	ses := s.session(m.Worker)
	applied, err := ses.open(s.engine, c)
	if err != nil {
		if errors.Is(err, errReplaced) {
			return stream.Send(faultReply(err))
		}
		return status.Error(codes.Unavailable, err.Error())
	}
	defer ses.leave(c)
	if err := stream.Send(&rpcpb.StoreCommitReply{Reply: &rpcpb.StoreCommitReply_Welcome{Welcome: &rpcpb.StoreWelcome{Applied: uint64(applied)}}}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	c.repeated() // what is applied and not acknowledged is answered, too
	nudge(c.arrived)
	var syncing, answering sync.WaitGroup
	syncing.Go(func() { s.sync(ctx, ses, c) })
	answering.Go(func() { c.answer(ctx, stream) })
	err = s.receive(stream, ses, c)
	switch {
	case base.KindOf(err) == base.Invalid:
		c.fail(err)
		answering.Wait() // ends when it has said so
		err = nil
	case errors.Is(err, errReplaced):
		answering.Wait() // it was told, and says so
		err = nil
	}
	cancel()
	syncing.Wait()
	answering.Wait()
	return err
}

// receive applies what comes until the stream ends.
func (s *server) receive(stream commitStream, ses *session, c *commits) error {
	for {
		in, err := stream.Recv()
		if err != nil {
			return err
		}
		frame := in.GetFrame()
		if frame == nil {
			return base.Invalidf("batch", "member %s sent something else than batches", c.member)
		}
		for i, b := range frame.GetBatches() {
			n := base.Number(frame.GetFirst()) + base.Number(i)
			if err := ses.append(s.engine, c, n, base.View(b.GetView()), b.GetOperations()); err != nil {
				if base.KindOf(err) == base.Unavailable {
					err = status.Error(codes.Unavailable, err.Error())
				}
				return err
			}
		}
		nudge(c.arrived)
	}
}

// sync waits for the disk, for everything that has arrived at a time: while it
// waits for one sync, batches queue up for the next.
func (s *server) sync(ctx context.Context, ses *session, c *commits) {
	durable := base.Number(0)
	for {
		select {
		case <-c.arrived:
		case <-ctx.Done():
			return
		}
		repeat := c.takeRepeat()
		applied, logged, current := ses.last(c)
		if !current {
			return
		}
		if applied == 0 || applied == durable && !repeat {
			continue
		}
		if s.engine.WaitDurable(ctx, logged) != nil {
			return
		}
		durable = applied
		c.say(func() { c.durable = applied })
	}
}

// answer sends what there is to say until ctx ends, the stream breaks or the
// member has to stop.
func (c *commits) answer(ctx context.Context, stream commitStream) {
	for {
		select {
		case <-c.due:
		case <-ctx.Done():
			return
		}
		replies, fault := c.answers()
		for _, reply := range replies {
			if stream.Send(reply) != nil {
				return
			}
		}
		if fault != nil {
			return
		}
	}
}

// faultReply tells the client to stop for good.
func faultReply(err error) *rpcpb.StoreCommitReply {
	f := &rpcpb.Failure{Kind: base.KindOf(err).String(), Detail: err.Error()}
	if e, ok := errors.AsType[*base.Error](err); ok {
		f.Subject, f.Detail, f.Unknown = e.Subject, e.Detail, e.Unknown
	}
	return &rpcpb.StoreCommitReply{Reply: &rpcpb.StoreCommitReply_Fault{Fault: f}}
}
