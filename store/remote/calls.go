package remote

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/store"
)

// place says what a call has to see: all that was appended before it.
func (e *Engine) place() (*rpcpb.StorePlace, error) {
	if e.opt.Member == (Member{}) {
		return nil, nil
	}
	if err := e.out(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return &rpcpb.StorePlace{Member: e.opt.Member.wire(), Number: uint64(e.pipe.appended)}, nil
}

// out is why the member calls the store no more, or nil.
func (e *Engine) out() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pipe.lost == nil {
		return nil
	}
	return &base.Error{Kind: base.Unavailable, Detail: "this worker is no member any more", Err: e.pipe.lost}
}

// retryPause is the pause before a call that failed on the way is made again.
const retryPause = 20 * time.Millisecond

// repeat makes a call that may be made twice, until it is answered, CallTimeout
// has passed or the member is out.
func (e *Engine) repeat(call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), e.opt.CallTimeout)
	defer cancel()
	defer e.onStop(cancel)()
	for {
		err := call(ctx)
		if err != nil && ctx.Err() != nil {
			if out := e.out(); out != nil {
				return out
			}
		}
		// Only what failed below the handlers is unavailable and unknown.
		failure, ok := errors.AsType[*base.Error](err)
		if !ok || failure.Kind != base.Unavailable || !failure.Unknown {
			return err
		}
		pause := time.NewTimer(retryPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// Get implements store.Reader. It sees all that this member has appended.
func (e *Engine) Get(dst, key []byte) ([]byte, bool, error) {
	after, err := e.place()
	if err != nil {
		return dst, false, err
	}
	var reply *rpcpb.StoreGetReply
	err = e.repeat(func(ctx context.Context) (err error) {
		reply, err = e.client.Get(ctx, &rpcpb.StoreGetRequest{After: after, Key: key}, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		return dst, false, err
	}
	return append(dst, reply.GetValue()...), reply.GetFound(), nil
}

// Scan implements store.Reader, page by page: CallTimeout is that of a page. It
// sees all that this member has appended before.
func (e *Engine) Scan(lo, hi []byte, visit func(key, value []byte) bool) error {
	after, err := e.place()
	if err != nil {
		return err
	}
	for {
		var page *rpcpb.StoreScanReply
		err := e.repeat(func(ctx context.Context) (err error) {
			page, err = e.client.Scan(ctx, &rpcpb.StoreScanRequest{After: after, Lo: lo, Hi: hi}, grpc.WaitForReady(true))
			return err
		})
		if err != nil {
			return err
		}
		pairs := page.GetPairs()
		for _, pair := range pairs {
			if !visit(pair.GetKey(), pair.GetValue()) {
				return nil
			}
		}
		if !page.GetMore() {
			return nil
		}
		if len(pairs) == 0 {
			return base.Errorf(base.Internal, "scan the store from %q: a page without keys", lo)
		}
		// The visitor had the key for the call only, so it is not kept.
		last := pairs[len(pairs)-1].GetKey()
		lo = append(last[:len(last):len(last)], 0)
	}
}

// Apply implements store.Engine. The batch is behind all that this member has
// appended. It is not repeated: an error with Unknown set leaves open whether
// it was applied.
func (e *Engine) Apply(b store.Batch) error {
	mine := b.(*batch)
	if mine.spent {
		panic("store: misused batch: it was appended or released")
	}
	if len(mine.operations) > MaxBatchBytes {
		return base.Errorf(base.TooLarge, "the batch has %d bytes, the store takes %d", len(mine.operations), MaxBatchBytes)
	}
	after, err := e.place()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), e.opt.CallTimeout)
	defer cancel()
	_, err = e.client.Apply(ctx, &rpcpb.StoreApplyRequest{After: after, Operations: mine.operations}, grpc.WaitForReady(true))
	return err
}

// Seal implements store.Engine.
func (e *Engine) Seal(v base.View) error {
	return e.repeat(func(ctx context.Context) error {
		_, err := e.client.Seal(ctx, &rpcpb.StoreSealRequest{View: uint32(v)}, grpc.WaitForReady(true))
		if err == nil {
			e.heard(v)
		}
		return err
	})
}

// heard keeps the greatest seal and returns it.
func (e *Engine) heard(v base.View) base.View {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pipe.seal = max(e.pipe.seal, v)
	return e.pipe.seal
}

// Sealed implements store.Engine. If the store cannot be asked within
// CallTimeout it is the greatest seal that this end has heard of: a seal only
// grows, so a Seal that is too low by it is refused.
func (e *Engine) Sealed() base.View {
	var reply *rpcpb.StoreSealedReply
	err := e.repeat(func(ctx context.Context) (err error) {
		reply, err = e.client.Sealed(ctx, &rpcpb.StoreSealedRequest{}, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		e.opt.Logger.Warn("the seal is not known: the store does not answer", "err", err)
		return e.heard(0)
	}
	return e.heard(base.View(reply.GetView()))
}
