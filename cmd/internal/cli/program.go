package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// Program is one command-line program. All fields are required.
type Program struct {
	// Name is the program's name in messages, Description what --help says.
	Name, Description string
	// Grammar is a pointer to the struct of flags and commands, as kong reads it.
	// The selected command's Run method may take a context.Context, a Streams
	// and whatever Bind returns.
	Grammar any
	// Bind is called once, after the flags are read, and returns what Run methods
	// take besides.
	Bind func(Streams) ([]any, error)
}

// Streams are the process's standard streams, passed on so that commands can be
// tested without a process.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Main runs the program on the process's arguments and streams and returns its
// exit status.
func (p Program) Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on the default action is back: whoever presses ^C a
	// second time does not want to wait for an orderly end.
	defer context.AfterFunc(ctx, stop)()
	return p.Run(ctx, os.Args[1:], Streams{os.Stdin, os.Stdout, os.Stderr})
}

// Run runs the program on args until it ends or ctx does, and returns the exit
// status. Only --help does not return: it ends the process.
func (p Program) Run(ctx context.Context, args []string, streams Streams) int {
	err := p.run(ctx, args, streams)
	if err == nil {
		return 0
	}
	fmt.Fprintf(streams.Stderr, "%s: %v\n", p.Name, err)
	return Status(err)
}

func (p Program) run(ctx context.Context, args []string, streams Streams) error {
	parser, err := kong.New(p.Grammar,
		kong.Name(p.Name), kong.Description(p.Description),
		kong.Writers(streams.Stdout, streams.Stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(streams))
	if err != nil {
		return fmt.Errorf("the program's own grammar is wrong: %w", err)
	}
	selected, err := parser.Parse(args)
	if err != nil {
		return Usagef("%w (%s --help shows what there is)", err, p.Name)
	}
	bindings, err := p.Bind(streams)
	if err != nil {
		return err
	}
	return selected.Run(bindings...)
}
