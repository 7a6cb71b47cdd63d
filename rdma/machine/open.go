package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/tenure-faas/tenure/rdma"
)

// Choose probes the machine and judges it. If demand allows it, and no device
// has atomics while everything else that verbs need is there, it makes a
// software device in between, which may take some seconds.
func Choose(ctx context.Context, demand Demand) (Facts, Verdict) { return choose(ctx, host(), demand) }

func choose(ctx context.Context, s *system, d Demand) (Facts, Verdict) {
	f := probe(s)
	if d.Validate() == nil && d.wantsRXE(f) {
		created := createRXE(ctx, s, f, d)
		f = probe(s)
		f.Created = &created
	}
	return f, Judge(f, d)
}

// wantsRXE says whether a software device is allowed and would help. It outlives
// the process, so it is not made where the process could not use it.
func (d Demand) wantsRXE(f Facts) bool {
	d.EnsureDefaults()
	if f.RDMA == No && f.Modules[moduleCore] != ModuleAbsent {
		f.RDMA = Unknown // the kernel loads it when it is asked for the device
	}
	return d.RXE == RXECreate && (d.Provider == "" || d.Provider == ProviderVerbs) && d.Device == "" &&
		len(processFaults(f, d)) == 0 &&
		!slices.ContainsFunc(f.Devices, func(c Device) bool { return c.Atomics != No })
}

// Open opens the chosen provider. If that fails, it logs one line and opens the
// next choice; a demanded provider is the only one, so its error is returned.
// The logger also gets what the provider has to say later; nil is slog.Default.
// The caller closes the provider. ctx stops it between two attempts.
func Open(ctx context.Context, v Verdict, logger *slog.Logger) (rdma.Provider, error) {
	return openFirst(ctx, v, logger, openChoice)
}

// openFirst opens the first choice that opens.
func openFirst(ctx context.Context, v Verdict, logger *slog.Logger, open func(Choice, *slog.Logger) (rdma.Provider, error)) (rdma.Provider, error) {
	if v.Err != nil {
		return nil, v.Err
	}
	if logger == nil {
		logger = slog.Default()
	}
	var failed []error
	for i, c := range v.Choices {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(append(failed, err)...)
		}
		p, err := open(c, logger)
		if err == nil {
			return p, nil
		}
		failed = append(failed, fmt.Errorf("open %s: %w", c.Provider, err))
		if i+1 < len(v.Choices) {
			logger.WarnContext(ctx, "rdma: "+c.Provider+" cannot be opened, "+v.Choices[i+1].Provider+" is used instead", "error", err)
		}
	}
	return nil, errors.Join(failed...)
}
