package project

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// stopTimeout bounds how long a cancelled compiler may take to end.
const stopTimeout = 5 * time.Second

// Bytes returns the bytes of the function's module. For a Go function it runs
// the compiler, which takes seconds, and ends it when ctx is done; the error then
// has the compiler's output.
func (f *Function) Bytes(ctx context.Context) ([]byte, error) {
	if f.Module != "" {
		module, err := os.ReadFile(f.Module)
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", f.Name, err)
		}
		return module, nil
	}
	module, err := build(ctx, f.Source)
	if err != nil {
		return nil, fmt.Errorf("build function %s: %w", f.Name, err)
	}
	return module, nil
}

// build compiles the main package in dir to a WASI reactor module.
func build(ctx context.Context, dir string) (module []byte, err error) {
	compiler, err := exec.LookPath("go")
	if err != nil {
		return nil, errors.New("the command go is not in the PATH; install Go (https://go.dev/dl), or build the module elsewhere and name it with module: in " + FileName)
	}
	temporary, err := os.MkdirTemp("", "tenure-build-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
	output := filepath.Join(temporary, "module.wasm")

	// Without paths and revision in it the module, and with it the function's
	// version, depends on the source and the compiler only.
	command := exec.CommandContext(ctx, compiler, "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", output, ".")
	command.Dir = dir
	command.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	command.WaitDelay = stopTimeout
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, errors.New("interrupted")
		}
		// The exit status of the compiler is not that of this program, so its
		// error is not wrapped.
		return nil, fmt.Errorf("go build in %s: %s", dir, strings.TrimSpace(fmt.Sprintf("%v\n%s", err, &said)))
	}
	return os.ReadFile(output)
}
