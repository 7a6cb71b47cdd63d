package lint

import (
	"go/ast"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/tenure-faas/tenure"

// room is a part of the tree and what it may import besides itself and the
// standard library. DESIGN section 1 has the plan of the house.
type room struct {
	// dir is the directory; the room is everything below it that is not in a
	// room of its own.
	dir string
	// may lists the directories of this module that it may import from.
	may []string
	// foreign lists the other modules it may import; "*" means any.
	foreign []string
	// core says that the room is pure: see purity.
	core bool
	// why says what the rule is for.
	why string
}

const (
	whyBase  = "the vocabulary imports the standard library only"
	whyCore  = "a core imports base and what is as pure as itself"
	whyEdge  = "an edge knows base and its own contract, never a core, a shell or another edge"
	whyShell = "arrows between shells go gateway -> worker and gateway -> leasemgr, and not back"
	whyLeaf  = "what functions and tests build on stands alone"
)

// rooms are all rooms. A room's longest matching directory counts.
var rooms = []room{
	{dir: "base", why: whyBase},

	{dir: "txn", may: []string{"base", "internal/plant"}, core: true, why: whyCore},
	{dir: "workflow", may: []string{"base", "internal/plant"}, core: true, why: whyCore,
		foreign: []string{"github.com/goccy/go-yaml", "github.com/tidwall/gjson"}},
	{dir: "lease", may: []string{"base", "internal/plant"}, core: true, why: whyCore},
	{dir: "affinity", may: []string{"base", "internal/plant"}, core: true, why: whyCore},

	{dir: "store", may: []string{"base", "internal/plant"}, foreign: []string{"*"}, why: whyEdge},
	{dir: "store/remote", may: []string{"base", "internal/plant", "store", "rpc"}, foreign: []string{"*"},
		why: "the store over the network knows its contract and the control plane"},
	{dir: "runtime", may: []string{"base", "internal/plant", "sdk/go"}, foreign: []string{"*"}, why: whyEdge},
	{dir: "rdma", may: []string{"base", "internal/plant", "cgo"}, foreign: []string{"*"}, why: whyEdge},
	{dir: "cgo", why: "a binding knows the C library and nothing of ours"},
	{dir: "rpc", may: []string{"base", "internal/plant"}, foreign: []string{"*"}, why: whyEdge},

	{dir: "leasemgr", may: inner("leasemgr/membership"), foreign: []string{"*"}, why: whyShell},
	{dir: "leasemgr/membership", may: []string{"base", "internal/plant", "lease"}, core: true, why: whyCore},
	{dir: "worker", may: inner(), foreign: []string{"*"}, why: whyShell},
	{dir: "gateway", may: inner("worker", "leasemgr"), foreign: []string{"*"}, why: whyShell},
	{dir: "internal/cluster", may: inner("worker", "leasemgr", "gateway"), foreign: []string{"*"}, why: whyShell},
	{dir: "internal/node", may: inner("worker", "leasemgr", "gateway", "internal/cluster"), foreign: []string{"*"}, why: whyShell},

	{dir: "sdk", why: whyLeaf},
	{dir: "examples", may: []string{"sdk"}, why: whyLeaf},
	{dir: "internal/plant", why: whyLeaf},
	{dir: "internal/check", may: []string{"base"}, why: whyLeaf},
	{dir: "internal/gctune", foreign: []string{"github.com/KimMachineGun/automemlimit"}, why: "it sets up a process and knows nothing of what runs in it"},
	{dir: "internal/lint", why: whyLeaf},
	{dir: "internal/acceptance", why: whyLeaf},
	{dir: "internal/sim", may: inner("worker", "leasemgr", "gateway", "internal/check", "internal/cluster", "internal/sim/host"), foreign: []string{"*"},
		why: "it runs whole clusters in simulated time"},
	{dir: "internal/sim/host", foreign: []string{"golang.org/x/sys"}, why: "it runs a program and knows nothing of what runs in it"},
	{dir: "internal/sim/simulate", may: []string{"internal/sim/host"}, why: "the command runs seeds and knows nothing of what runs in them"},
	{dir: "internal/rxevm", why: "it boots virtual machines and knows nothing of what runs in them"},
	{dir: "bench", may: []string{"base"}, foreign: []string{"*"}, why: "the load comes over the public API, as a user's does"},
	{dir: "bench/leases", may: []string{"base", "bench"}, foreign: []string{"*"}, why: "it measures clusters of processes over the public API"},
	{dir: "bench/verbs", may: []string{"base", "rdma", "rpc"}, foreign: []string{"*"}, why: "it measures providers, not servers"},

	{dir: "cmd", may: inner("worker", "leasemgr", "gateway", "internal/node", "internal/gctune", "sdk", "examples", "bench"), foreign: []string{"*"},
		why: "commands wire everything but the tools of tests"},
}

// inner lists what every shell may use, and more.
func inner(more ...string) []string {
	return append([]string{"base", "internal/plant", "txn", "workflow", "lease", "affinity", "store", "runtime", "rdma", "rpc"}, more...)
}

func within(dir, parent string) bool { return dir == parent || strings.HasPrefix(dir, parent+"/") }

func roomOf(dir string) (best room, found bool) {
	for _, r := range rooms {
		if within(dir, r.dir) && len(r.dir) > len(best.dir) {
			best, found = r, true
		}
	}
	return best, found
}

// arrows checks the imports of every package against its room. Tests may import
// what they like.
func arrows(t *tree) (found []finding) {
	for f := range t.sources {
		r, ok := roomOf(f.dir())
		if !ok {
			found = append(found, t.at(f, f.ast.Package, "%s is in no room: add it to rooms in internal/lint/arrows_test.go", f.dir()))
			continue
		}
		for _, spec := range f.ast.Imports {
			if imported := importPath(spec); !r.allows(imported) {
				found = append(found, t.at(f, spec.Pos(), "%s must not import %s: %s", r.dir, strings.TrimPrefix(imported, module+"/"), r.why))
			}
		}
	}
	return found
}

func (r room) allows(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	if dir, own := strings.CutPrefix(imported, module+"/"); own {
		target, ok := roomOf(dir)
		return ok && (target.dir == r.dir || slices.ContainsFunc(r.may, func(may string) bool { return within(dir, may) }))
	}
	if !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(r.foreign, func(m string) bool { return m == "*" || within(imported, m) })
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic("the parser let through the import " + spec.Path.Value)
	}
	return p
}

// impure are packages of the standard library that no core imports: what starts
// goroutines or guards against them, does I/O, or draws from global randomness.
var impure = []string{"os", "net", "sync", "syscall", "log", "runtime", "crypto/rand", "math/rand", "io/ioutil", "testing", "unsafe", "plugin"}

// clock are the functions of package time that read the clock or wait for it.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// purity checks that the cores do no I/O and read no clock: what they need
// comes in as arguments.
func purity(t *tree) (found []finding) {
	for f := range t.sources {
		if r, _ := roomOf(f.dir()); !r.core {
			continue
		}
		timeName := ""
		for _, spec := range f.ast.Imports {
			imported := importPath(spec)
			if slices.ContainsFunc(impure, func(p string) bool { return within(imported, p) }) {
				found = append(found, t.at(f, spec.Pos(), "a core must not import %s: it does no I/O and is called under a latch", imported))
			}
			if imported == "time" {
				timeName = "time"
				if spec.Name != nil {
					timeName = spec.Name.Name
				}
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && timeName != "" && x.Name == timeName && slices.Contains(clock, s.Sel.Name) {
				found = append(found, t.at(f, s.Pos(), "a core must not call time.%s: it takes the time as an argument", s.Sel.Name))
			}
			return true
		})
	}
	return found
}
