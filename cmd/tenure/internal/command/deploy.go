package command

import (
	"context"
	"errors"

	"github.com/tenure-faas/tenure/cmd/tenure/internal/deploy"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/project"
)

// Deploy is `tenure deploy`.
type Deploy struct {
	Dir string `arg:"" type:"path" help:"Directory with a tenure.yaml, or with a Go main package that becomes one function."`
}

// Run builds and deploys the project and prints what the server made of it,
// also when it refuses a part.
func (c *Deploy) Run(ctx context.Context, env *Env) error {
	p, err := project.Read(c.Dir)
	if err != nil {
		return err
	}
	result, err := deploy.Project(ctx, env.Client, p, deploy.Options{Progress: env.Stderr})
	if env.json() {
		return errors.Join(err, env.print(result))
	}
	for _, f := range result.Functions {
		state := "deployed"
		if !f.Changed {
			state = "unchanged"
		}
		err = errors.Join(err, env.printf("function %s %s: version %.12s with %d handlers %v\n", f.Name, state, f.Version, len(f.Handlers), f.Handlers))
	}
	for _, w := range result.Workflows {
		err = errors.Join(err, env.printf("workflow %s: revision %d\n", w.Name, w.Revision))
	}
	return err
}
