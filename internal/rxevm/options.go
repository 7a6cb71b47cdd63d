package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxNodes is how many machines one run may have: each costs memory and
// processors, and three show all that two cannot.
const maxNodes = 3

// Options are what a run depends on.
type Options struct {
	// Payload is the directory that every node gets as /payload.
	Payload string
	// Nodes is the number of machines, 1 to 3; 0 means 1.
	Nodes int
	// Timeout bounds the run from the start of the first machine to the end of
	// the last; 0 means 4 minutes. A download of the kernel is not part of it.
	Timeout time.Duration
	// Memory is that of one node in MiB; 0 means what the payload needs.
	Memory int
	// CPUs is the number of processors of one node; 0 means 2.
	CPUs int
	// Cache is the directory that keeps the kernel between runs; empty means
	// tenure-rxevm in the user's cache directory.
	Cache string
	// Logs is a directory that gets what was printed and what was run, by node;
	// empty means none.
	Logs string
	// Modules are kernel modules to load beside those of rxe.
	Modules []string
	// Env are the variables, as KEY=VALUE, that run finds in its environment
	// beside NODE, NODES and IP.
	Env []string
	// Programs are programs of this machine that the nodes get too, by name.
	Programs []string
	// Mortal are the numbers of the nodes whose machines are to end while the
	// payload runs, because it kills them.
	Mortal []int
	// Install says to install Debian packages that are missing, which takes
	// root.
	Install bool
}

// list is a flag that may be given several times and takes several values.
type list struct {
	values *[]string
	// whole says that a comma does not separate values.
	whole bool
}

// String is the default value, as the flag package shows it.
func (l list) String() string { return "" }

// Set adds the values of one flag.
func (l list) Set(value string) error {
	if l.whole {
		*l.values = append(*l.values, value)
		return nil
	}
	for v := range strings.SplitSeq(value, ",") {
		if v = strings.TrimSpace(v); v != "" {
			*l.values = append(*l.values, v)
		}
	}
	return nil
}

// numbers is a flag like list whose values are numbers.
type numbers struct{ values *[]int }

// String is the default value, as the flag package shows it.
func (n numbers) String() string { return "" }

// Set adds the values of one flag.
func (n numbers) Set(value string) error {
	for v := range strings.SplitSeq(value, ",") {
		number, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("%q is not a number", v)
		}
		*n.values = append(*n.values, number)
	}
	return nil
}

// parseOptions reads the command line. Usage and what is wrong with a flag go
// to out.
func parseOptions(args []string, out io.Writer) (Options, error) {
	var o Options
	flags := flag.NewFlagSet("rxevm", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.IntVar(&o.Nodes, "nodes", 1, "number of machines, 1 to 3")
	flags.DurationVar(&o.Timeout, "timeout", 4*time.Minute, "bound of the run, from the first boot to the last exit")
	flags.IntVar(&o.Memory, "memory", 0, "memory of one machine in MiB (default: what the payload needs)")
	flags.IntVar(&o.CPUs, "cpus", 2, "processors of one machine")
	flags.StringVar(&o.Cache, "cache", "", "directory that keeps the kernel between runs (default: tenure-rxevm in your cache directory)")
	flags.StringVar(&o.Logs, "logs", "", "directory for the consoles and the QEMU commands")
	flags.Var(list{values: &o.Modules}, "modules", "kernel modules to load beside those of rxe, as a,b; may be repeated")
	flags.Var(list{values: &o.Env, whole: true}, "env", "KEY=VALUE for the environment of run; may be repeated")
	flags.Var(list{values: &o.Programs}, "program", "programs of this machine to take along, as a,b; may be repeated")
	flags.Var(numbers{values: &o.Mortal}, "dies", "nodes whose machines must end while run runs, as 2,3; that they do not is a failure")
	flags.BoolVar(&o.Install, "install", false, "install missing Debian packages with apt-get (as root)")
	flags.Usage = func() {
		fmt.Fprintln(out, "usage: rxevm [flags] PAYLOAD_DIR\n\nRuns PAYLOAD_DIR/run as root on virtual machines with a SoftRoCE device rxe0.\n\nflags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return Options{}, err
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return Options{}, fmt.Errorf("one payload directory is wanted, behind the flags; got %d arguments", flags.NArg())
	}
	o.Payload = flags.Arg(0)
	if err := o.ensureDefaults(); err != nil {
		return Options{}, err
	}
	return o, o.validate()
}

// ensureDefaults replaces zero values.
func (o *Options) ensureDefaults() error {
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.Timeout == 0 {
		o.Timeout = 4 * time.Minute
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("where to keep the kernel is not known, give --cache: %w", err)
		}
		o.Cache = filepath.Join(dir, "tenure-rxevm")
	}
	// Commands run in directories of their own.
	cache, err := filepath.Abs(o.Cache)
	if err != nil {
		return fmt.Errorf("--cache: %w", err)
	}
	o.Cache = cache
	return nil
}

// environment is the shape of what --env takes.
var environment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// validate returns all that is wrong with the options.
func (o *Options) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.Nodes < 1 || o.Nodes > maxNodes {
		fault("--nodes is %d: 1 to %d are possible", o.Nodes, maxNodes)
	}
	if o.Timeout < 0 {
		fault("--timeout is %v: a run needs some time", o.Timeout)
	}
	if o.Memory != 0 && o.Memory < leastMemory {
		fault("--memory is %d MiB: the kernel alone needs %d", o.Memory, leastMemory)
	}
	if o.CPUs < 1 || o.CPUs > 64 {
		fault("--cpus is %d: 1 to 64 are possible", o.CPUs)
	}
	for i, n := range o.Mortal {
		if n < 1 || n > o.Nodes || slices.Contains(o.Mortal[:i], n) {
			fault("--dies %d: there are nodes 1 to %d, each dies once", n, o.Nodes)
		}
	}
	if len(o.Mortal) >= o.Nodes && o.Nodes > 0 {
		fault("--dies names all nodes: one must be left to tell how it went")
	}
	for _, v := range o.Env {
		if !environment.MatchString(v) {
			fault("--env %q is not KEY=VALUE", v)
		}
	}
	for _, v := range o.Programs {
		if strings.Contains(v, "/") {
			fault("--program %q is a path: give a name, or put the file into the payload", v)
		}
	}
	switch info, err := os.Stat(filepath.Join(o.Payload, "run")); {
	case err != nil:
		fault("the payload has no program to start: %w", err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		fault("%s is not an executable file: chmod +x it", filepath.Join(o.Payload, "run"))
	}
	return errors.Join(faults...)
}
