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

// guestPackage is the program that Build compiles, from the module's root.
const guestPackage = "./internal/sim/guest"

// Build compiles the program of the simulation, with these build tags, in the
// module that dir is in, and returns its WebAssembly. It runs the go command of
// the PATH, whose build cache makes it quick when nothing has changed.
func Build(ctx context.Context, dir string, tags ...string) (wasm []byte, err error) {
	out, err := goCommand(ctx, dir, nil, "env", "GOMOD")
	if err != nil {
		return nil, err
	}
	mod := strings.TrimSpace(out)
	if filepath.Base(mod) != "go.mod" {
		return nil, fmt.Errorf("build the guest: %q is in no module", dir)
	}
	return compile(ctx, filepath.Dir(mod), guestPackage, tags)
}

// compile compiles one program for wasip1.
func compile(ctx context.Context, dir, program string, tags []string) (wasm []byte, err error) {
	temporary, err := os.MkdirTemp("", "tenure-sim-*")
	if err != nil {
		return nil, fmt.Errorf("build the guest: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
	file := filepath.Join(temporary, "guest.wasm")
	arguments := []string{"build", "-trimpath", "-o", file}
	if len(tags) > 0 {
		arguments = append(arguments, "-tags", strings.Join(tags, ","))
	}
	environment := []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}
	if _, err := goCommand(ctx, dir, environment, append(arguments, program)...); err != nil {
		return nil, err
	}
	if wasm, err = os.ReadFile(file); err != nil {
		return nil, fmt.Errorf("build the guest: %w", err)
	}
	return wasm, nil
}

// goCommand runs the go command and returns its standard output.
func goCommand(ctx context.Context, dir string, environment []string, arguments ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, "go", arguments...)
	c.Dir, c.Stdout, c.Stderr = dir, &stdout, &stderr
	c.Env = append(os.Environ(), environment...)
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build the guest: go %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
