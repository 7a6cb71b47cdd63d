package remote

import (
	"bytes"
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/store"
)

// ServerOptions configures Register.
type ServerOptions struct {
	// Wait bounds how long a read waits for the batches of its caller that it
	// has to see; 0 means 5 s.
	Wait time.Duration
	// PageBytes and PageKeys bound one page of a scan, which has one pair at
	// least; 0 means 1 MiB and 1024.
	PageBytes, PageKeys int
}

// EnsureDefaults replaces zero values by the documented defaults.
func (o *ServerOptions) EnsureDefaults() {
	if o.Wait == 0 {
		o.Wait = 5 * time.Second
	}
	if o.PageBytes == 0 {
		o.PageBytes = 1 << 20
	}
	if o.PageKeys == 0 {
		o.PageKeys = 1024
	}
}

// Register serves an engine on s, a server of rpc.NewServer with MessageBytes
// as MaxMessage. The engine stays the caller's, who may use it besides; it must
// stay open until the server has stopped, handlers included.
func Register(s grpc.ServiceRegistrar, engine store.Engine, o ServerOptions) {
	o.EnsureDefaults()
	rpcpb.RegisterStoreServer(s, &server{engine: engine, opt: o, sessions: map[uint16]*session{}, workers: meta(), others: own()})
}

type server struct {
	rpcpb.UnimplementedStoreServer
	engine store.Engine
	opt    ServerOptions
	// workers and others are the keys that commits and Apply may not write.
	workers, others territory

	mu sync.Mutex
	// sessions are those of all workers that were heard of, at most MaxWorker;
	// guarded by mu.
	sessions map[uint16]*session
}

func (s *server) session(worker uint16) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses := s.sessions[worker]
	if ses == nil {
		ses = &session{worker: worker, key: AppliedKey(worker)}
		s.sessions[worker] = ses
	}
	return ses
}

// reach waits until the log has what the caller has appended.
func (s *server) reach(ctx context.Context, after *rpcpb.StorePlace) error {
	if after.GetMember().GetWorker() == 0 {
		return nil
	}
	m, err := memberFrom(after.GetMember())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.Wait)
	defer cancel()
	return s.session(m.Worker).wait(ctx, m, base.Number(after.GetNumber()))
}

// Get implements the service.
func (s *server) Get(ctx context.Context, in *rpcpb.StoreGetRequest) (*rpcpb.StoreGetReply, error) {
	if err := s.reach(ctx, in.GetAfter()); err != nil {
		return nil, err
	}
	value, found, err := s.engine.Get(nil, in.GetKey())
	if err != nil {
		return nil, err
	}
	return &rpcpb.StoreGetReply{Found: found, Value: value}, nil
}

// Scan implements the service.
func (s *server) Scan(ctx context.Context, in *rpcpb.StoreScanRequest) (*rpcpb.StoreScanReply, error) {
	if err := s.reach(ctx, in.GetAfter()); err != nil {
		return nil, err
	}
	var hi []byte
	if len(in.GetHi()) > 0 {
		hi = in.GetHi()
	}
	reply, size := &rpcpb.StoreScanReply{}, 0
	err := s.engine.Scan(in.GetLo(), hi, func(key, value []byte) bool {
		size += len(key) + len(value)
		if n := len(reply.Pairs); n > 0 && (n == s.opt.PageKeys || size > s.opt.PageBytes) {
			reply.More = true
			return false
		}
		reply.Pairs = append(reply.Pairs, &rpcpb.StorePair{Key: bytes.Clone(key), Value: bytes.Clone(value)})
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	return reply, err
}

// Apply implements the service.
func (s *server) Apply(ctx context.Context, in *rpcpb.StoreApplyRequest) (*rpcpb.StoreApplyReply, error) {
	if err := s.reach(ctx, in.GetAfter()); err != nil {
		return nil, err
	}
	b := s.engine.NewBatch()
	defer b.Release()
	if err := decode(in.GetOperations(), b, s.others); err != nil {
		return nil, err
	}
	if err := s.engine.Apply(b); err != nil {
		return nil, err
	}
	return &rpcpb.StoreApplyReply{}, nil
}

// Seal implements the service.
func (s *server) Seal(_ context.Context, in *rpcpb.StoreSealRequest) (*rpcpb.StoreSealReply, error) {
	if err := s.engine.Seal(base.View(in.GetView())); err != nil {
		return nil, err
	}
	return &rpcpb.StoreSealReply{}, nil
}

// Sealed implements the service.
func (s *server) Sealed(context.Context, *rpcpb.StoreSealedRequest) (*rpcpb.StoreSealedReply, error) {
	return &rpcpb.StoreSealedReply{View: uint32(s.engine.Sealed())}, nil
}
