package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build compiles a program, with these build tags beside its own, in the module
// that dir is in, and returns a Runner of it, which the caller closes. Program is
// the path of its package from the module's root. It runs the go command of the
// PATH, whose build cache makes it quick when nothing has changed.
func Build(ctx context.Context, dir, program string, tags ...string) (_ *Runner, err error) {
	out, err := goCommand(ctx, dir, "env", "GOMOD")
	if err != nil {
		return nil, err
	}
	mod := strings.TrimSpace(out)
	if filepath.Base(mod) != "go.mod" {
		return nil, fmt.Errorf("build the program: %q is in no module", dir)
	}
	r := &Runner{}
	if r.dir, err = os.MkdirTemp("", "tenure-sim-*"); err != nil {
		return nil, fmt.Errorf("build the program: %w", err)
	}
	r.path = filepath.Join(r.dir, "program")
	tags = append([]string{"faketime"}, tags...)
	if _, err := goCommand(ctx, filepath.Dir(mod), "build", "-trimpath", "-o", r.path, "-tags", strings.Join(tags, ","), program); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close removes the program.
func (r *Runner) Close() error { return os.RemoveAll(r.dir) }

// goCommand runs the go command and returns its standard output.
func goCommand(ctx context.Context, dir string, arguments ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, "go", arguments...)
	c.Dir, c.Stdout, c.Stderr = dir, &stdout, &stderr
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build the program: go %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
