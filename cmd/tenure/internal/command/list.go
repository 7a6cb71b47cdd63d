package command

import (
	"context"
	"encoding/json"
	"net/url"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/tenure-faas/tenure/cmd/tenure/internal/client"
)

// list gets a list and prints it: as the server wrote it with --output json,
// otherwise as the table that rows makes of it.
func list[T any](ctx context.Context, env *Env, path string, header table.Row, rows func(T) []table.Row) error {
	answer, err := env.Client.Do(ctx, client.Request{Method: "GET", Path: path})
	if err != nil {
		return err
	}
	if env.json() {
		return env.print(json.RawMessage(answer.Body))
	}
	var v T
	if err := decode(answer.Body, &v); err != nil {
		return err
	}
	return env.rows(header, rows(v))
}

// Functions is `tenure functions`.
type Functions struct{}

type functionList struct {
	Functions []struct {
		Name, Version, Runtime string
		Handlers               []string
		Isolate                bool
		Versions               []json.RawMessage
	}
}

// Run lists the deployed functions.
func (c *Functions) Run(ctx context.Context, env *Env) error {
	header := table.Row{"name", "runtime", "version", "kept", "isolate", "handlers"}
	return list(ctx, env, "/v1/functions", header, func(l functionList) (rows []table.Row) {
		for _, f := range l.Functions {
			version := "-"
			if f.Version != "" {
				version = f.Version[:min(12, len(f.Version))]
			}
			rows = append(rows, table.Row{f.Name, f.Runtime, version, len(f.Versions), f.Isolate, strings.Join(f.Handlers, ", ")})
		}
		return rows
	})
}

// Workflows is `tenure workflows`.
type Workflows struct{}

type workflowList struct {
	Workflows []struct {
		Name       string
		Revision   int
		Definition struct {
			Kind      string
			Functions orderedNames
			Output    string
			Timeout   string
		}
	}
}

// orderedNames are the names in a JSON object, in its order.
type orderedNames []string

// UnmarshalJSON reads an object's names.
func (n *orderedNames) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		if text, ok := name.(string); ok {
			*n = append(*n, text)
		}
		var skipped json.RawMessage
		if err := decoder.Decode(&skipped); err != nil {
			return err
		}
	}
	return nil
}

// Run lists the workflows.
func (c *Workflows) Run(ctx context.Context, env *Env) error {
	header := table.Row{"name", "revision", "kind", "steps", "output", "timeout"}
	return list(ctx, env, "/v1/workflows", header, func(l workflowList) (rows []table.Row) {
		for _, w := range l.Workflows {
			d := w.Definition
			rows = append(rows, table.Row{w.Name, w.Revision, orElse(d.Kind, "transaction"), strings.Join(d.Functions, ", "), orElse(d.Output, "all"), orElse(d.Timeout, "-")})
		}
		return rows
	})
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// Workers is `tenure workers`.
type Workers struct {
	List  ListWorkers `cmd:"" default:"1" help:"List the members of the cluster (what happens without a command)."`
	Drain DrainWorker `cmd:"" help:"Take a worker out of the cluster when its invocations have ended."`
}

// ListWorkers is `tenure workers list`.
type ListWorkers struct{}

// DrainWorker is `tenure workers drain`.
type DrainWorker struct {
	Name string `arg:"" help:"The worker, as tenure workers lists it."`
}

// Run drains the worker and waits until it is out.
func (c *DrainWorker) Run(ctx context.Context, env *Env) error {
	_, err := env.Client.Do(ctx, client.Request{Method: "POST", Path: "/v1/workers/" + url.PathEscape(c.Name) + "/drain"})
	return err
}

type cluster struct {
	View    uint64
	Workers []struct {
		ID, Address, Provider string
		Load                  int
	}
}

// Run lists the members.
func (c *ListWorkers) Run(ctx context.Context, env *Env) error {
	header := table.Row{"worker", "address", "provider", "load", "view"}
	return list(ctx, env, "/v1/cluster", header, func(l cluster) (rows []table.Row) {
		for _, w := range l.Workers {
			rows = append(rows, table.Row{w.ID, w.Address, w.Provider, w.Load, l.View})
		}
		return rows
	})
}

// Version is `tenure version`.
type Version struct{}

type buildInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Run prints what this program was built from.
func (c *Version) Run(env *Env) error {
	v := buildInfo{Version: "(unknown)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	if env.json() {
		return env.print(v)
	}
	revision := ""
	if v.Revision != "" {
		revision = " revision " + v.Revision
	}
	return env.printf("tenure %s%s %s %s\n", v.Version, revision, v.Go, v.Platform)
}
