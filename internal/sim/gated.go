package sim

import (
	"context"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store"
)

// gated is an engine behind the gate of its process.
type gated struct {
	*Engine
	process *process
}

// Append implements store.Engine.
func (g *gated) Append(v base.View, b store.Batch) (base.Number, error) {
	g.process.gate()
	return g.Engine.Append(v, b)
}

// Apply implements store.Engine.
func (g *gated) Apply(b store.Batch) error {
	g.process.gate()
	return g.Engine.Apply(b)
}

// Seal implements store.Engine.
func (g *gated) Seal(v base.View) error {
	g.process.gate()
	return g.Engine.Seal(v)
}

// WaitDurable implements store.Engine.
func (g *gated) WaitDurable(ctx context.Context, n base.Number) error {
	err := g.Engine.WaitDurable(ctx, n)
	g.process.gate()
	return err
}
