package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// sayCommand fails in the way that its argument names.
type sayCommand struct {
	What string `arg:""`
}

// Run implements the command.
func (c *sayCommand) Run(ctx context.Context, streams Streams, greeting string) error {
	switch c.What {
	case "ok":
		_, err := fmt.Fprintln(streams.Stdout, greeting)
		return err
	case "usage":
		return fmt.Errorf("outer: %w", Usagef("wrong: %w", errors.ErrUnsupported))
	case "canceled":
		return context.Cause(ctx)
	}
	return errors.New(c.What)
}

func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		args           string
		status         int
		stdout, stderr string
	}{
		{"say ok", 0, "hello\n", ""},
		{"say usage", 2, "", "prog: outer: wrong: unsupported operation\n"},
		{"say sorry", 1, "", "prog: sorry\n"},
		{"say canceled", 1, "", "prog: context canceled\n"},
		{"say", 2, "", "prog: expected \"<what>\" (prog --help shows what there is)\n"},
		{"say --loud ok", 2, "", "prog: unknown flag --loud (prog --help shows what there is)\n"},
		{"say bind", 1, "", "prog: no binding\n"},
	} {
		t.Run(test.args, func(t *testing.T) {
			var grammar struct {
				Say sayCommand `cmd:""`
			}
			p := Program{Name: "prog", Description: "A program.", Grammar: &grammar, Bind: func(Streams) ([]any, error) {
				if grammar.Say.What == "bind" {
					return nil, errors.New("no binding")
				}
				return []any{"hello"}, nil
			}}
			var stdout, stderr bytes.Buffer
			status := p.Run(ctx, strings.Fields(test.args), Streams{Stdout: &stdout, Stderr: &stderr})
			if status != test.status || stdout.String() != test.stdout || stderr.String() != test.stderr {
				t.Errorf("status %d, stdout %q, stderr %q; want %d, %q, %q",
					status, &stdout, &stderr, test.status, test.stdout, test.stderr)
			}
		})
	}
}

func TestListenCheck(t *testing.T) {
	for _, test := range []struct {
		listen, token, read string
		insecure            bool
		want                string // part of the error; empty: allowed
	}{
		{listen: "127.0.0.1:8088"},
		{listen: "127.9.9.9:0"},
		{listen: "[::1]:8088"},
		{listen: "[::ffff:127.0.0.1]:8088"},
		{listen: "localhost:8088"},
		{listen: ":8088", want: "there is no token"},
		{listen: "0.0.0.0:8088", want: "there is no token"},
		{listen: "[::]:8088", want: "there is no token"},
		{listen: "192.168.1.7:8088", want: "there is no token"},
		{listen: "localhost.example:8088", want: "there is no token"},
		{listen: "0.0.0.0:8088", token: "secret"},
		{listen: "0.0.0.0:8088", insecure: true},
		{listen: "127.0.0.1:8088", token: "secret", read: "other"},
		{listen: "127.0.0.1:8088", read: "other", want: "nobody could write"},
		{listen: "8088", want: "it must be HOST:PORT"},
		{listen: "", want: "it must be HOST:PORT"},
	} {
		l := Listen{Listen: test.listen, ReadToken: test.read, Insecure: test.insecure}
		err := l.Check(test.token)
		if test.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", test, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || Status(err) != Usage {
			t.Errorf("%+v: error %v with status %d", test, err, Status(err))
		}
	}
}

func TestLogger(t *testing.T) {
	for _, test := range []struct{ format, want string }{
		{"text", "level=INFO msg=shown"}, {"json", `"level":"INFO","msg":"shown"`},
	} {
		var out bytes.Buffer
		logger := (&Log{LogFormat: test.format}).Logger(&out)
		logger.Debug("hidden")
		logger.Info("shown")
		if got := out.String(); !strings.Contains(got, test.want) || strings.Contains(got, "hidden") {
			t.Errorf("%s: wrote %q", test.format, got)
		}
	}
}
