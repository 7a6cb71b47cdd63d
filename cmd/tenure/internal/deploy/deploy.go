// Package deploy sends a project to a server: `tenure deploy`, and what `tenure
// dev` does with an example.
//
// Functions go first, then workflows, each in the order of their names. Every
// module is built before the first one is sent, so that a fault in the source
// changes nothing on the server. A refusal in the middle leaves what was sent
// before it: each function and each workflow is replaced as a whole, the project
// is not. Deploying again is safe, and what is deployed already stays as it is.
//
// Start reading at Project.
package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/tenure-faas/tenure/cmd/tenure/internal/client"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/progress"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/project"
)

// Result is what came of a deployment.
type Result struct {
	Functions []Function `json:"functions"`
	Workflows []Workflow `json:"workflows"`
}

// Function is the server's answer for one function.
type Function struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Handlers []string `json:"handlers"`
	// Changed is false for a module that was deployed already.
	Changed bool `json:"changed"`
}

// Workflow is the server's answer for one workflow.
type Workflow struct {
	Name     string `json:"name"`
	Revision int    `json:"revision"`
}

// Options configures a deployment. The zero value builds and sends everything
// and shows nothing.
type Options struct {
	// WorkflowsOnly leaves the functions out: the server has them compiled in.
	WorkflowsOnly bool
	// Progress shows what takes long, if it is a terminal; nil: nowhere.
	Progress io.Writer
}

// Project builds and sends p. It blocks until everything is durable or an error
// came; the result has what was sent up to then.
func Project(ctx context.Context, c *client.Client, p *project.Project, opt Options) (*Result, error) {
	r := &Result{Functions: []Function{}, Workflows: []Workflow{}}
	if !opt.WorkflowsOnly {
		modules := make([][]byte, len(p.Functions))
		for i := range p.Functions {
			f := &p.Functions[i]
			err := progress.Run(opt.Progress, "building function "+f.Name, func() (err error) {
				modules[i], err = f.Bytes(ctx)
				return err
			})
			if err != nil {
				return r, err
			}
		}
		for i := range p.Functions {
			f := &p.Functions[i]
			err := progress.Run(opt.Progress, "deploying function "+f.Name, func() error {
				return r.function(ctx, c, f, modules[i])
			})
			if err != nil {
				return r, fmt.Errorf("function %s: %w", f.Name, err)
			}
		}
	}
	for i := range p.Workflows {
		if err := r.workflow(ctx, c, &p.Workflows[i]); err != nil {
			return r, fmt.Errorf("workflow %s: %w", p.Workflows[i].Name, err)
		}
	}
	return r, nil
}

// function sends one module.
func (r *Result) function(ctx context.Context, c *client.Client, f *project.Function, module []byte) error {
	path := "/v1/functions/" + url.PathEscape(f.Name)
	if f.Isolate {
		path += "?isolate=true"
	}
	answer, err := c.Do(ctx, client.Request{
		Method: http.MethodPut, Path: path, Header: http.Header{"Content-Type": {"application/wasm"}}, Body: module,
	})
	if err != nil {
		return err
	}
	deployed := Function{Changed: answer.Status == http.StatusCreated}
	if err := json.Unmarshal(answer.Body, &deployed); err != nil {
		return fmt.Errorf("the server's answer is not readable: %w", err)
	}
	r.Functions = append(r.Functions, deployed)
	return nil
}

// workflow sends one definition.
func (r *Result) workflow(ctx context.Context, c *client.Client, w *project.Workflow) error {
	answer, err := c.Do(ctx, client.Request{
		Method: http.MethodPut, Path: "/v1/workflows/" + url.PathEscape(w.Name),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: w.Definition,
	})
	if err != nil {
		return err
	}
	var deployed Workflow
	if err := json.Unmarshal(answer.Body, &deployed); err != nil {
		return fmt.Errorf("the server's answer is not readable: %w", err)
	}
	r.Workflows = append(r.Workflows, deployed)
	return nil
}
