package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds the start of a server: on a new machine the compiler builds
// the standard library for WebAssembly first.
const patience = 5 * time.Minute

// build compiles the program once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tenure-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tenure")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return path, nil
})

// binary returns the path of the program.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	status := m.Run()
	if path, err := build(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(status)
}

// server is a `tenure dev` that runs.
type server struct {
	cmd    *exec.Cmd
	lines  []string // of its standard output
	stderr bytes.Buffer
}

// start runs `tenure dev` on data and waits until it has printed a line with the
// mark. The test ends it.
func start(t *testing.T, data, mark string, args ...string) *server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s := &server{}
	s.cmd = exec.CommandContext(ctx, binary(t), append([]string{"dev", "--listen", "127.0.0.1:0", "--data", data}, args...)...)
	s.cmd.Stderr = &s.stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.cmd.Process.Kill()
			s.cmd.Wait()
		}
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		s.lines = append(s.lines, lines.Text())
		if strings.Contains(lines.Text(), mark) {
			return s
		}
	}
	waitErr := s.cmd.Wait()
	t.Fatalf("no line with %q in %q: %v\n%s", mark, s.lines, waitErr, &s.stderr)
	return nil
}

// url returns the address that the server printed in its first line.
func (s *server) url(t *testing.T) string {
	t.Helper()
	url, ok := strings.CutPrefix(s.lines[0], "listening on ")
	if !ok || !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Fatalf("the first line is %q", s.lines[0])
	}
	return url
}

// signal ends the server and returns its exit status, -1 for a kill.
func (s *server) signal(t *testing.T, sig syscall.Signal) int {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

// run runs the program and returns what it wrote and its exit status.
func run(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return output(t, exec.CommandContext(t.Context(), binary(t), args...))
}

func output(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// try runs the three commands that the server printed, exactly as printed.
func (s *server) try(t *testing.T, wants [3]string) {
	t.Helper()
	var commands []string
	for at, line := range s.lines {
		if strings.HasSuffix(line, "try:") {
			commands = s.lines[at+1:]
		}
	}
	if len(commands) != len(wants) {
		t.Fatalf("the commands are %q in %q", commands, s.lines)
	}
	for i, command := range commands {
		stdout, stderr, status := output(t, exec.CommandContext(t.Context(), "sh", "-c", command))
		if status != 0 || !strings.Contains(stdout, wants[i]) {
			t.Errorf("%s: exit status %d, output %q, want %q\n%s", command, status, stdout, wants[i], stderr)
		}
	}
}

func TestDevBank(t *testing.T) {
	data := t.TempDir()
	example := []string{"--example", "bank", "--examples-dir", "../../examples"}
	wants := [3]string{"accounts/alice: version 1\naccounts/bob: version 1\n", `{"from_balance":70,"to_balance":30}` + "\n", "30"}
	s := start(t, data, " get accounts/bob", example...)
	s.try(t, wants)

	if _, stderr, status := run(t, "dev", "--listen", "127.0.0.1:0", "--data", data); status != 1 || !strings.Contains(stderr, "another process") {
		t.Errorf("a second server on the data: exit status %d, %s", status, stderr)
	}
	if status := s.signal(t, syscall.SIGTERM); status != 0 {
		t.Fatalf("SIGTERM: exit status %d\n%s", status, &s.stderr)
	}

	s = start(t, data, "data is in "+data)
	stdout, stderr, status := run(t, "get", "accounts/bob", "--server", s.url(t))
	if stdout != "30" || status != 0 {
		t.Errorf("after a restart: %q, %s, exit status %d", stdout, stderr, status)
	}
	stdout, stderr, status = run(t, "invoke", "transfer", `{"from":"alice","to":"bob","amount":20}`, "--server", s.url(t))
	if stdout != `{"from_balance":50,"to_balance":50}`+"\n" || status != 0 {
		t.Errorf("after a restart: %q, %s, exit status %d", stdout, stderr, status)
	}
	s.signal(t, syscall.SIGKILL)

	s = start(t, data, " get accounts/bob", example...)
	if stdout, stderr, status = run(t, "get", "accounts/bob", "--server", s.url(t)); stdout != "50" || status != 0 {
		t.Errorf("after a kill: %q, %s, exit status %d", stdout, stderr, status)
	}
	s.try(t, [3]string{"version", wants[1], wants[2]})
	if status := s.signal(t, syscall.SIGINT); status != 0 {
		t.Errorf("SIGINT: exit status %d\n%s", status, &s.stderr)
	}
}

func TestDevNative(t *testing.T) {
	for _, test := range []struct {
		example, mark string
		wants         [3]string
	}{
		{"bank", " get accounts/bob", [3]string{"version 1", `"to_balance":30`, "30"}},
		{"travel", " get hotels/ritz", [3]string{"version 1", `"rooms_left":1`, "1"}},
		{"media", " invoke movie ", [3]string{`"user":"ann"`, `"rate":{"rating":5}`, `"count":1`}},
	} {
		t.Run(test.example, func(t *testing.T) {
			data := t.TempDir()
			s := start(t, data, test.mark, "--example", test.example, "--examples-dir", "../../examples", "--runtime", "native")
			s.try(t, test.wants)
			stdout, stderr, status := run(t, "functions", "--server", s.url(t))
			if status != 0 || !strings.Contains(stdout, test.example+" ") || !strings.Contains(stdout, " native ") {
				t.Errorf("functions: exit status %d, %q\n%s", status, stdout, stderr)
			}
			if status := s.signal(t, syscall.SIGTERM); status != 0 {
				t.Errorf("SIGTERM: exit status %d\n%s", status, &s.stderr)
			}
		})
	}
}

func TestDevRefuses(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"other machines without a token", []string{"--listen", "0.0.0.0:0"}, 2, "there is no token"},
		{"no address", []string{"--listen", "nowhere"}, 2, "HOST:PORT"},
		{"unknown example", []string{"--example", "casino"}, 2, "--example"},
		{"examples elsewhere", []string{"--example", "bank", "--examples-dir", file}, 2, "--examples-dir"},
		{"native without an example", []string{"--runtime", "native"}, 2, "--example"},
		{"data is a file", []string{"--data", file}, 1, file},
	} {
		t.Run(test.name, func(t *testing.T) {
			stdout, stderr, status := run(t, append([]string{"dev", "--data", data}, test.args...)...)
			if status != test.status || stdout != "" || !strings.Contains(stderr, test.want) {
				t.Errorf("exit status %d, %q, %q; want %d and %q", status, stdout, stderr, test.status, test.want)
			}
		})
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused start made the data directory: %v", err)
	}
}

func TestToken(t *testing.T) {
	s := start(t, t.TempDir(), "data is in", "--token", "full", "--read-token", "read")
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"put", "t/k", "v"}, 1, "unauthorized"},
		{[]string{"put", "t/k", "v", "--token", "read"}, 1, "forbidden"},
		{[]string{"put", "t/k", "v", "--token", "full"}, 0, "t/k: version 1"},
		{[]string{"get", "t/k", "--token", "read"}, 0, "v"},
	} {
		stdout, stderr, status := run(t, append(test.args, "--server", s.url(t))...)
		if status != test.status || !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("%v: exit status %d, %q, %q", test.args, status, stdout, stderr)
		}
	}
}
