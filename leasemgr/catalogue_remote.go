package leasemgr

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/workflow"
)

// Limits of what changes the catalogue from elsewhere.
const (
	// MaxModuleBytes bounds a module.
	MaxModuleBytes = 64 << 20
	// maxDefinitionBytes bounds a workflow's definition.
	maxDefinitionBytes = 32 << 20
	// CatalogueMessageBytes is the MaxMessage of rpc.Options that the service and
	// its clients need.
	CatalogueMessageBytes = MaxModuleBytes + 1<<20
	// maxWatch bounds how long a Watch waits.
	maxWatch = 20 * time.Second
)

// RegisterCatalogue registers a catalogue as the service Catalogue on a server
// that rpc.NewServer made with CatalogueMessageBytes. The process that does so
// owns the catalogue: see Catalogue.
func RegisterCatalogue(s grpc.ServiceRegistrar, c *Catalogue) {
	rpcpb.RegisterCatalogueServer(s, &catalogueServer{catalogue: c})
}

type catalogueServer struct {
	rpcpb.UnimplementedCatalogueServer
	catalogue *Catalogue
}

func (s *catalogueServer) DeployFunction(ctx context.Context, in *rpcpb.DeployFunctionRequest) (*rpcpb.DeployFunctionReply, error) {
	if err := checkSize("module", len(in.GetModule()), MaxModuleBytes); err != nil {
		return nil, err
	}
	f, created, err := s.catalogue.DeployFunction(ctx, in.GetName(), in.GetModule(), in.GetIsolate())
	if err != nil {
		return nil, err
	}
	d := &rpcpb.FunctionDescription{Name: f.Name, Version: f.Version, Handlers: f.Handlers, Runtime: f.Runtime, Isolate: f.Isolate}
	for _, v := range f.Versions {
		d.Versions = append(d.Versions, &rpcpb.FunctionVersionDescription{Version: v.Version, DeployedNs: v.Deployed.UnixNano()})
	}
	return &rpcpb.DeployFunctionReply{Function: d, Created: created, Sequence: s.catalogue.Sequence()}, nil
}

func (s *catalogueServer) RemoveFunction(ctx context.Context, in *rpcpb.RemoveRequest) (*rpcpb.RemoveReply, error) {
	if err := s.catalogue.RemoveFunction(ctx, in.GetName()); err != nil {
		return nil, err
	}
	return &rpcpb.RemoveReply{Sequence: s.catalogue.Sequence()}, nil
}

func (s *catalogueServer) PutWorkflow(ctx context.Context, in *rpcpb.PutWorkflowRequest) (*rpcpb.PutWorkflowReply, error) {
	if err := checkSize("definition", len(in.GetDefinition()), maxDefinitionBytes); err != nil {
		return nil, err
	}
	if in.GetFormat() > uint32(workflow.YAML) {
		return nil, base.Invalidf("workflow", "the definition has format %d, which this release does not know", in.GetFormat())
	}
	w, created, err := s.catalogue.PutWorkflow(ctx, in.GetName(), in.GetDefinition(), workflow.Format(in.GetFormat()))
	if err != nil {
		return nil, err
	}
	return &rpcpb.PutWorkflowReply{Name: w.Name, Revision: int64(w.Revision), Definition: w.Definition, Created: created, Sequence: s.catalogue.Sequence()}, nil
}

func (s *catalogueServer) RemoveWorkflow(ctx context.Context, in *rpcpb.RemoveRequest) (*rpcpb.RemoveReply, error) {
	if err := s.catalogue.RemoveWorkflow(ctx, in.GetName()); err != nil {
		return nil, err
	}
	return &rpcpb.RemoveReply{Sequence: s.catalogue.Sequence()}, nil
}

func (s *catalogueServer) Watch(ctx context.Context, in *rpcpb.WatchCatalogueRequest) (*rpcpb.WatchCatalogueReply, error) {
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(in.GetWaitNs()), maxWatch))
	defer cancel()
	sequence, err := s.catalogue.Await(ctx, in.GetKnown())
	if err != nil {
		return nil, err
	}
	return &rpcpb.WatchCatalogueReply{Sequence: sequence}, nil
}

func checkSize(what string, n, limit int) error {
	if n > limit {
		return base.Errorf(base.TooLarge, "the %s has %d bytes, the limit is %d", what, n, limit)
	}
	return nil
}

// Replica is a catalogue that another process owns: it reads the store, and asks
// the owner for changes. It is what gateways and workers have. What it shows may
// be a little behind, but never behind what was changed through it.
type Replica struct {
	*Catalogue
	owner rpcpb.CatalogueClient
	// pause is between two tries to reach the owner, at first and at most.
	pause, longest time.Duration
}

// NewReplica reads the catalogue as NewCatalogue does; the owner need not be
// there. native must be what the owner has, which checks workflows against it.
// The connection, which rpc.Dial made with CatalogueMessageBytes, and the reader
// stay the caller's. It starts nothing; see Run.
func NewReplica(ctx context.Context, r store.Reader, loader Loader, native map[string]runtime.Bundle, logger *slog.Logger, conn grpc.ClientConnInterface) (*Replica, error) {
	c, err := newCatalogue(ctx, r, nil, loader, native, logger)
	if err != nil {
		return nil, err
	}
	return &Replica{c, rpcpb.NewCatalogueClient(conn), 50 * time.Millisecond, 2 * time.Second}, nil
}

// Run refreshes the replica whenever the owner has changed something, until ctx
// ends. While the owner cannot be reached it looks into the store by itself.
func (r *Replica) Run(ctx context.Context) error {
	pause := r.pause
	for ctx.Err() == nil {
		err := r.follow(ctx)
		if err == nil {
			pause = r.pause
			continue
		}
		if ctx.Err() != nil {
			break
		}
		r.logger.Warn("what is deployed may be out of date here", "err", err)
		timer := time.NewTimer(pause + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, r.longest)
	}
	return nil
}

// follow waits for one change and reads it.
func (r *Replica) follow(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, maxWatch+10*time.Second)
	defer cancel()
	out, unreachable := r.owner.Watch(asking, &rpcpb.WatchCatalogueRequest{Known: r.Sequence(), WaitNs: int64(maxWatch)})
	if unreachable == nil {
		return r.Reach(ctx, out.GetSequence())
	}
	if _, err := r.Refresh(ctx); err != nil {
		return err
	}
	return unreachable
}

// see makes a change that the owner has made visible here. If that fails the
// change is made nevertheless, and Run goes on trying.
func (r *Replica) see(ctx context.Context, sequence uint64) {
	if err := r.Reach(ctx, sequence); err != nil {
		r.logger.Warn("a change of the catalogue is not visible here yet", "err", err)
	}
}

// DeployFunction asks the owner for Catalogue.DeployFunction.
func (r *Replica) DeployFunction(ctx context.Context, name string, module []byte, isolate bool) (FunctionInfo, bool, error) {
	if err := checkSize("module", len(module), MaxModuleBytes); err != nil {
		return FunctionInfo{}, false, err
	}
	out, err := r.owner.DeployFunction(ctx, &rpcpb.DeployFunctionRequest{Name: name, Module: module, Isolate: isolate})
	if err != nil {
		return FunctionInfo{}, false, err
	}
	r.see(ctx, out.GetSequence())
	f := out.GetFunction()
	info := FunctionInfo{Name: f.GetName(), Version: f.GetVersion(), Handlers: f.GetHandlers(), Runtime: f.GetRuntime(), Isolate: f.GetIsolate()}
	for _, v := range f.GetVersions() {
		info.Versions = append(info.Versions, FunctionVersion{v.GetVersion(), time.Unix(0, v.GetDeployedNs()).UTC()})
	}
	return info, out.GetCreated(), nil
}

// RemoveFunction asks the owner for Catalogue.RemoveFunction.
func (r *Replica) RemoveFunction(ctx context.Context, name string) error {
	out, err := r.owner.RemoveFunction(ctx, &rpcpb.RemoveRequest{Name: name})
	if err == nil {
		r.see(ctx, out.GetSequence())
	}
	return err
}

// PutWorkflow asks the owner for Catalogue.PutWorkflow.
func (r *Replica) PutWorkflow(ctx context.Context, name string, definition []byte, format workflow.Format) (WorkflowInfo, bool, error) {
	if err := checkSize("definition", len(definition), maxDefinitionBytes); err != nil {
		return WorkflowInfo{}, false, err
	}
	out, err := r.owner.PutWorkflow(ctx, &rpcpb.PutWorkflowRequest{Name: name, Definition: definition, Format: uint32(format)})
	if err != nil {
		return WorkflowInfo{}, false, err
	}
	r.see(ctx, out.GetSequence())
	return WorkflowInfo{Name: out.GetName(), Revision: int(out.GetRevision()), Definition: out.GetDefinition()}, out.GetCreated(), nil
}

// RemoveWorkflow asks the owner for Catalogue.RemoveWorkflow.
func (r *Replica) RemoveWorkflow(ctx context.Context, name string) error {
	out, err := r.owner.RemoveWorkflow(ctx, &rpcpb.RemoveRequest{Name: name})
	if err == nil {
		r.see(ctx, out.GetSequence())
	}
	return err
}
