package remote

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// Pauses between two tries to open a stream grow from the first to the longest.
const (
	firstPause   = 20 * time.Millisecond
	longestPause = time.Second
)

// run keeps a stream to the store until ctx ends or the member has to stop.
func (e *Engine) run(ctx context.Context) {
	pause := firstPause
	for {
		welcomed, err := e.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if err, stop := errors.AsType[finalError](err); stop {
			e.lose(err.cause)
			e.opt.OnRefused(Refusal{Err: err.cause})
			return
		}
		if welcomed {
			pause = firstPause
		}
		e.opt.Logger.Warn("the stream of commits to the store broke; batches wait", "member", e.opt.Member, "err", err)
		timer := time.NewTimer(pause + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// finalError is an error after which no stream is opened again.
type finalError struct{ cause error }

// Error implements error.
func (f finalError) Error() string { return f.cause.Error() }

// final marks a broken invariant of the pipeline.
func final(err error) error {
	if err == nil {
		return nil
	}
	return finalError{err}
}

// serve runs one stream. It returns when the stream has broken and nothing of
// it is running any more.
func (e *Engine) serve(ctx context.Context) (welcomed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(e.opt.CallTimeout, cancel)
	defer late.Stop()
	stream, err := e.client.Commit(ctx, grpc.WaitForReady(true))
	if err != nil {
		return false, err
	}
	hello := &rpcpb.StoreCommitRequest{Request: &rpcpb.StoreCommitRequest_Hello{Hello: e.opt.Member.wire()}}
	if err := stream.Send(hello); err != nil {
		_, err = stream.Recv() // has the reason
		return false, err
	}
	first, err := stream.Recv()
	if err != nil {
		return false, err
	}
	if err := e.welcome(first); err != nil {
		return false, err
	}
	late.Stop()
	var receiving sync.WaitGroup
	var received error
	receiving.Go(func() {
		received = e.receive(stream)
		cancel()
	})
	e.send(ctx, stream)
	cancel()
	receiving.Wait()
	return true, received
}

type clientStream = grpc.BidiStreamingClient[rpcpb.StoreCommitRequest, rpcpb.StoreCommitReply]

func (e *Engine) welcome(first *rpcpb.StoreCommitReply) error {
	if err := faultOf(first); err != nil {
		return err
	}
	welcome := first.GetWelcome()
	if welcome == nil {
		return final(base.Errorf(base.Internal, "the store did not answer the hello of member %s as expected: is it of another release?", e.opt.Member))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return final(e.pipe.welcome(base.Number(welcome.GetApplied())))
}

// send sends what is in the pipeline until ctx ends or the stream breaks; the
// receiver has the reason. While one frame is sent, the next one gathers.
func (e *Engine) send(ctx context.Context, stream clientStream) {
	for {
		e.mu.Lock()
		frame := e.pipe.frame()
		e.mu.Unlock()
		if frame == nil {
			select {
			case <-e.wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		if stream.Send(&rpcpb.StoreCommitRequest{Request: &rpcpb.StoreCommitRequest_Frame{Frame: frame}}) != nil {
			return
		}
	}
}

// receive takes answers until the stream breaks.
func (e *Engine) receive(stream clientStream) error {
	for {
		reply, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := faultOf(reply); err != nil {
			return err
		}
		switch {
		case reply.GetAcknowledged() != nil:
			err = e.acknowledge(base.Number(reply.GetAcknowledged().GetDurable()))
		case reply.GetRefused() != nil:
			err = e.refuse(base.Number(reply.GetRefused().GetNumber()), base.View(reply.GetRefused().GetSeal()))
		default:
			err = base.Errorf(base.Internal, "the store sent an answer that this release does not know")
		}
		if err != nil {
			return final(err)
		}
	}
}

func (e *Engine) acknowledge(n base.Number) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pipe.acknowledge(n)
}

func (e *Engine) refuse(n base.Number, seal base.View) error {
	e.mu.Lock()
	held, err := e.pipe.refuse(n, seal)
	e.mu.Unlock()
	if err != nil {
		return err
	}
	if held {
		e.opt.OnRefused(Refusal{Seal: seal})
	} else {
		e.nudge()
	}
	return nil
}

// faultOf returns the error that ends the member's commits, if it is one.
func faultOf(reply *rpcpb.StoreCommitReply) error {
	f := reply.GetFault()
	if f == nil {
		return nil
	}
	kind, _ := base.ParseKind(f.GetKind()) // a kind of a later release is Internal to us
	return final(&base.Error{Kind: kind, Subject: f.GetSubject(), Detail: f.GetDetail(), Unknown: f.GetUnknown()})
}
