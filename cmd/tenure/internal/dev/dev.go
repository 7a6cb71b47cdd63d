// Package dev is `tenure dev`: everything in one process, with an example if one
// is named.
//
// The server is up before the example is built, so that "listening on URL" comes
// at once; the commands to try come when they work. An example that cannot be
// deployed ends the server: whoever asked for it should not have to find out by
// a 404.
//
// Start reading at Command.Run; the examples are in examples.go.
package dev

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/internal/serve"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/client"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/command"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/deploy"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/project"
)

// Command is `tenure dev`.
type Command struct {
	serve.Flags
	Example     string `enum:",bank,travel,media" default:"" placeholder:"NAME" help:"Deploy an example: bank, travel or media."`
	ExamplesDir string `default:"./examples" type:"path" placeholder:"DIR" help:"Where the examples' source is (default ./examples)."`
	Runtime     string `enum:"wasm,native" default:"wasm" help:"What runs the example: ${enum} (default ${default}). native is compiled into this program."`
}

// Run serves until ctx ends.
func (c *Command) Run(ctx context.Context, env *command.Env) error {
	opt := serve.Options{Token: env.Token}
	var p *project.Project
	switch {
	case c.Example != "":
		var err error
		if p, err = project.Read(filepath.Join(c.ExamplesDir, c.Example)); err != nil {
			return cli.Usagef("example %s: %w; name the directory of the examples with --examples-dir", c.Example, err)
		}
		if c.Runtime == "native" {
			if opt.Native, err = examples()[c.Example].native(p); err != nil {
				return fmt.Errorf("example %s: %w", c.Example, err)
			}
		}
	case c.Runtime == "native":
		return cli.Usagef("--runtime native needs --example: only the examples are compiled into this program")
	}
	opt.Ready = func(ctx context.Context, url string) error {
		if p != nil {
			if err := c.deploy(ctx, env, url, p); err != nil {
				return fmt.Errorf("example %s: %w", c.Example, err)
			}
		}
		return c.hints(env, url)
	}
	return c.Flags.Run(ctx, env.Streams, opt)
}

// deploy sends the example to the server that this process is.
func (c *Command) deploy(ctx context.Context, env *command.Env, url string, p *project.Project) error {
	self, err := client.New(url, env.Token)
	if err != nil {
		return err
	}
	defer self.Close()
	_, err = deploy.Project(ctx, self, p, deploy.Options{WorkflowsOnly: c.Runtime == "native", Progress: env.Stderr})
	return err
}

// hints prints where the data is and, with an example, commands to try.
func (c *Command) hints(env *command.Env, url string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "data is in %s\n", c.Data)
	if c.Example != "" {
		if env.Token != "" {
			fmt.Fprintln(&text, "the commands need the token: export TENURE_TOKEN")
		}
		fmt.Fprintf(&text, "example %s is deployed, try:\n", c.Example)
		for _, arguments := range examples()[c.Example].try {
			words := []string{os.Args[0]}
			if url != command.DefaultServer {
				words = append(words, "--server", url)
			}
			for _, word := range append(words, arguments...) {
				fmt.Fprintf(&text, " %s", quote(word))
			}
			text.WriteByte('\n')
		}
	}
	_, err := fmt.Fprint(env.Stdout, text.String())
	return err
}

// quote returns a word as a POSIX shell takes it.
func quote(word string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_-./:=+,@%", r)
	}
	if word != "" && strings.TrimFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
