package txn

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
)

var rewrite = flag.Bool("rewrite", false, "write the traces' output into testdata/*.txt instead of comparing it")

// TestTraces runs the scripts of testdata. A script is prose in comments and
// blocks of commands; "----" ends the commands and the output follows up to an
// empty line. The switches of world.run, runGates and runSets list the commands.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runTrace(string(raw))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if line, want, have := firstDifference(string(raw), got); line > 0 {
				t.Errorf("%s:%d: the trace says %q, the code says %q; if that is meant, run go test -rewrite and read the diff", file, line, want, have)
			}
		})
	}
}

// TestTraceComparisonBites shows that a trace with a wrong expectation, a
// missing line or a line too many is noticed.
func TestTraceComparisonBites(t *testing.T) {
	const right = "acquire T1 a shared\n----\nT1 a shared: granted\n"
	for _, wrong := range []string{
		strings.Replace(right, "granted", "queued", 1),
		"acquire T1 a shared\n----\n",
		right + "T1 a shared: granted\n",
	} {
		if line, _, _ := firstDifference(wrong, runTrace(wrong)); line == 0 {
			t.Errorf("the trace %q passes", wrong)
		}
	}
	if line, want, have := firstDifference(right, runTrace(right)); line != 0 {
		t.Errorf("line %d: want %q, have %q", line, want, have)
	}
}

func firstDifference(want, got string) (line int, w, g string) {
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(wants), len(gots)) {
		w, g = "(end)", "(end)"
		if i < len(wants) {
			w = wants[i]
		}
		if i < len(gots) {
			g = gots[i]
		}
		if w != g {
			return i + 1, w, g
		}
	}
	return 0, "", ""
}

// runTrace returns the script with the output that the code gives now.
func runTrace(script string) string {
	w := &world{table: NewTable(1 << 20), gates: map[string]*Gate{}, txns: map[string]*actor{}}
	var text, output strings.Builder
	old := false // within the output that is replaced
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case old && line != "":
			continue
		case line == "----":
			old = true
			text.WriteString("----\n" + output.String())
			output.Reset()
			continue
		case line != "" && !strings.HasPrefix(line, "#"):
			w.run(&output, strings.Fields(line))
		}
		old = false
		text.WriteString(line + "\n")
	}
	return text.String()
}

// actor is one transaction of a trace.
type actor struct {
	name  string
	locks []*Lock
	set   Set
	foot  Footprint
}

// world is what a trace acts on.
type world struct {
	table *Table
	gates map[string]*Gate
	txns  map[string]*actor
	order []*actor
}

func (w *world) actor(name string) *actor {
	a := w.txns[name]
	if a == nil {
		a = &actor{name: name}
		w.txns[name] = a
		w.order = append(w.order, a)
	}
	return a
}

func (w *world) gate(table string) *Gate {
	if w.gates[table] == nil {
		w.gates[table] = &Gate{}
	}
	return w.gates[table]
}

func parseKey(s string) base.Key {
	if table, key, ok := strings.Cut(s, "/"); ok {
		return base.Key{Table: table, Key: key}
	}
	return base.Key{Table: "t", Key: s}
}

func showKey(k base.Key) string {
	if k.Table == "t" {
		return k.Key
	}
	return k.String()
}

func (a *actor) lock(key string) *Lock {
	for _, l := range a.locks {
		if l.Key == parseKey(key) {
			return l
		}
	}
	panic(fmt.Sprintf("%s has no lock on %s", a.name, key))
}

func (a *actor) drop(l *Lock) {
	for i, m := range a.locks {
		if m == l {
			a.locks = append(a.locks[:i], a.locks[i+1:]...)
		}
	}
}

// arguments are the words of a command behind its name: positional ones, and
// options name=value.
type arguments struct {
	words   []string
	options map[string]string
}

func parseArguments(words []string) arguments {
	args := arguments{options: map[string]string{}}
	for _, word := range words {
		if name, value, ok := strings.Cut(word, "="); ok {
			args.options[name] = value
		} else {
			args.words = append(args.words, word)
		}
	}
	return args
}

func (a arguments) list(name string) []string {
	if value, ok := a.options[name]; ok {
		return strings.Split(value, ",")
	}
	return nil
}

func (a arguments) number(name string) int {
	n, err := strconv.Atoi(a.options[name])
	if err != nil {
		panic(fmt.Sprintf("%s=%q is not a number", name, a.options[name]))
	}
	return n
}

// wait reports whether the last word is "wait".
func (a arguments) wait() bool { return a.words[len(a.words)-1] == "wait" }

func (w *world) run(out *strings.Builder, words []string) {
	args := parseArguments(words[1:])
	say := func(format string, values ...any) { fmt.Fprintf(out, format+"\n", values...) }
	switch words[0] {
	case "budget": // budget BYTES: a new, empty lock table
		n, _ := strconv.Atoi(args.words[0])
		w.table = NewTable(int64(n))
	case "acquire": // acquire T key mode [wait]
		a := w.actor(args.words[0])
		k := parseKey(args.words[1])
		l := &Lock{Key: k, Slot: k.Slot(), Mode: parseMode(args.words[2])}
		status := w.table.Acquire(l, args.wait())
		if status != Refused {
			a.locks = append(a.locks, l)
		}
		say("%s %s %v: %s", a.name, args.words[1], l.Mode, statusWord(status))
	case "upgrade": // upgrade T key mode
		l := w.actor(args.words[0]).lock(args.words[1])
		status := w.table.Upgrade(l, parseMode(args.words[2]))
		say("%s %s: %s, holds it %v", args.words[0], args.words[1], statusWord(status), l.Mode)
	case "release": // release T key
		a := w.actor(args.words[0])
		l := a.lock(args.words[1])
		a.drop(l)
		w.sayWoken(say, w.table.Release(l, nil))
	case "cancel": // cancel T key
		a := w.actor(args.words[0])
		l := a.lock(args.words[1])
		woken, cancelled := w.table.Cancel(l, nil)
		if !cancelled {
			say("%s holds %s already", a.name, args.words[1])
			return
		}
		a.drop(l)
		w.sayWoken(say, woken)
	case "fill": // fill T key version=N value=V: what the store has
		l := w.actor(args.words[0]).lock(args.words[1])
		w.table.Fill(l.Entry, base.Version(args.number("version")), []byte(args.options["value"]), true, 0)
		w.sayEntry(say, args.words[1])
	case "install": // install T key version=N value=V batch=N
		l := w.actor(args.words[0]).lock(args.words[1])
		w.table.Install(l.Entry, base.Version(args.number("version")), []byte(args.options["value"]), true, base.Number(args.number("batch")))
		w.sayEntry(say, args.words[1])
	case "entry": // entry key...
		for _, key := range args.words {
			w.sayEntry(say, key)
		}
	case "dump": // dump key...: holders and waiters
		for _, key := range args.words {
			w.sayQueue(say, key)
		}
	default:
		w.runGates(say, words[0], args)
	}
}

func (w *world) runGates(say func(string, ...any), command string, args arguments) {
	switch command {
	case "gate-enter": // gate-enter T table [scans=p,...] [writes=k,...] [wait]
		a, table := w.actor(args.words[0]), args.words[1]
		p := a.set.InsertPass(table)
		p.Scans, p.Writes = args.list("scans"), args.list("writes")
		status := w.gate(table).Enter(p, args.wait())
		if status == Refused {
			a.set.RemovePass(p)
		}
		say("%s at %s: %s", a.name, table, gateWord(status))
	case "gate-extend": // gate-extend T table [scans=...] [writes=...]
		p := w.actor(args.words[0]).set.Pass(args.words[1])
		status := w.gate(args.words[1]).Extend(p, args.list("scans"), args.list("writes"))
		say("%s at %s: %s, scans %q writes %q", args.words[0], args.words[1], gateWord(status), p.Scans, p.Writes)
	case "gate-leave", "gate-cancel": // gate-leave T table
		a, table := w.actor(args.words[0]), args.words[1]
		p := a.set.Pass(table)
		var woken []*Pass
		if command == "gate-leave" {
			woken = w.gate(table).Leave(p, nil)
		} else {
			var cancelled bool
			if woken, cancelled = w.gate(table).Cancel(p, nil); !cancelled {
				say("%s is inside %s already", a.name, table)
				return
			}
		}
		a.set.RemovePass(p) // traces use one table a transaction, so it is the last
		w.sayLetIn(say, woken)
	case "gate-dump": // gate-dump table
		w.sayGate(say, args.words[0])
	default:
		w.runSets(say, command, args)
	}
}

func (w *world) runSets(say func(string, ...any), command string, args arguments) {
	switch command {
	case "want": // want T key mode: into the footprint
		w.actor(args.words[0]).foot.Want(parseKey(args.words[1]), parseMode(args.words[2]))
	case "want-scan": // want-scan T table prefix
		w.actor(args.words[0]).foot.WantScan(Range{args.words[1], args.words[2]})
	case "touch": // touch T key mode: into the set
		w.actor(args.words[0]).set.Insert(parseKey(args.words[1]), parseMode(args.words[2]))
	case "in-order": // in-order T key
		say("%v", w.actor(args.words[0]).set.InOrder(parseKey(args.words[1])))
	case "learn": // learn T: the footprint learns the set, which is emptied
		a := w.actor(args.words[0])
		a.foot.Learn(&a.set)
		a.set.Reset()
	case "footprint": // footprint T
		a := w.actor(args.words[0])
		a.foot.Sort()
		for _, n := range a.foot.Needs {
			say("slot %d: %s %v", n.Key.Slot(), n.Key, n.Mode)
		}
	case "gates": // gates T: the passes of the footprint
		a := w.actor(args.words[0])
		a.foot.Gates(&a.set)
		for _, p := range a.set.Passes {
			say("%s: scans %q writes %q", p.Table, p.Scans, p.Writes)
		}
	case "mark": // mark T key step=N use=read|write|add [before=N,...]
		a := w.actor(args.words[0])
		access := a.set.Find(parseKey(args.words[1]))
		if access == nil {
			access = a.set.Insert(parseKey(args.words[1]), Exclusive)
		}
		var before uint64
		for _, step := range args.list("before") {
			n, _ := strconv.Atoi(step)
			before |= 1 << n
		}
		use := map[string]Use{"read": Read, "write": Write, "add": AddTo}[args.options["use"]]
		conflicting := access.Mark(args.number("step"), use, before)
		steps := []string{}
		for step := range 64 {
			if conflicting>>step&1 == 1 {
				steps = append(steps, strconv.Itoa(step))
			}
		}
		if len(steps) == 0 {
			steps = []string{"nobody"}
		}
		say("step %s conflicts with %s", args.options["step"], strings.Join(steps, ", "))
	default:
		panic("no command " + command)
	}
}

func parseMode(s string) Mode {
	for m := Shared; m <= Exclusive; m++ {
		if m.String() == s {
			return m
		}
	}
	panic("no mode " + s)
}

func statusWord(s Status) string {
	return map[Status]string{Granted: "granted", Queued: "queued", Refused: "refused"}[s]
}

func gateWord(s Status) string {
	return map[Status]string{Granted: "let in", Queued: "queued", Refused: "refused"}[s]
}

func (w *world) owner(l *Lock) string {
	for _, a := range w.order {
		for _, m := range a.locks {
			if m == l {
				return a.name
			}
		}
	}
	return "nobody"
}

func (w *world) passer(p *Pass) string {
	for _, a := range w.order {
		for _, q := range a.set.Passes {
			if q == p {
				return a.name
			}
		}
	}
	return "nobody"
}

func (w *world) sayWoken(say func(string, ...any), woken []*Lock) {
	if len(woken) == 0 {
		say("wakes nobody")
	}
	for _, l := range woken {
		say("wakes %s: %s %v", w.owner(l), showKey(l.Key), l.Mode)
	}
}

func (w *world) sayLetIn(say func(string, ...any), woken []*Pass) {
	if len(woken) == 0 {
		say("lets nobody in")
	}
	for _, p := range woken {
		say("lets in %s", w.passer(p))
	}
}

func (w *world) sayQueue(say func(string, ...any), key string) {
	e := lookup(w.table, parseKey(key))
	if e == nil {
		say("%s: not in the table", key)
		return
	}
	queue := func(q lockList) string {
		words := []string{}
		for l := q.first; l != nil; l = l.next {
			words = append(words, fmt.Sprintf("%s(%v)", w.owner(l), l.Mode))
		}
		if len(words) == 0 {
			return "-"
		}
		return strings.Join(words, " ")
	}
	say("%s: held by %s, waiting %s", key, queue(e.holders), queue(e.waiters))
}

func (w *world) sayEntry(say func(string, ...any), key string) {
	e := lookup(w.table, parseKey(key))
	switch {
	case e == nil:
		say("%s: not in the table", key)
	case !e.Loaded:
		say("%s: not loaded", key)
	default:
		say("%s: version %d, value %q, dirty %d", key, e.Version, e.Value, e.Dirty)
	}
}

func (w *world) sayGate(say func(string, ...any), table string) {
	g := w.gate(table)
	var inside, queue []string
	for _, a := range w.order {
		if p := a.set.Pass(table); p != nil && p.Inside() {
			inside = append(inside, a.name)
		}
	}
	for _, p := range g.queue {
		queue = append(queue, w.passer(p))
	}
	say("%s: inside %v, queued %v, idle %v", table, inside, queue, g.Idle())
}
