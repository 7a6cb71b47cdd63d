package workflow

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"pgregory.net/rapid"
)

// trace runs a schedule, always ending the running step that stands last in
// the definition, and returns what it handed out: waves of step names, with a
// bar behind each step that ended.
func trace(w *Workflow, s Schedule) string {
	var b strings.Builder
	show := func(set StepSet) {
		for i := range set.All() {
			b.WriteString(w.Steps[i].Name)
		}
	}
	running := s.Ready()
	show(running)
	for running != 0 {
		last := 0
		for i := range running.All() {
			last = i
		}
		ready := s.Done(last)
		running = running&^(1<<uint(last)) | ready
		b.WriteByte('|')
		show(ready)
	}
	if !s.Finished() {
		b.WriteString(" stuck")
	}
	return b.String()
}

// keyUses reads "r:k w:k,j ..." for the steps in order: what each uses.
func keyUses(steps string) []KeyUse {
	var uses []KeyUse
	for i, step := range strings.Split(steps, ";") {
		for _, use := range strings.Fields(step) {
			uses = append(uses, KeyUse{base.Key{Table: "t", Key: use[2:]}, use[0] == 'w', i})
		}
	}
	return uses
}

func TestSchedule(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps string // step:predecessor,predecessor
		uses  string // of the steps in order
		extra []Edge
		want  string
	}{
		{"one step", "a", "", nil, "a|"},
		{"linear", "a b:a c:b", "w:x;w:x;w:x", nil, "a|b|c|"},
		{"linear backwards", "c:b b:a a", "", nil, "a|b|c|"},
		{"parallel", "a b c", "", nil, "abc|||"},
		{"diamond", "a b:a c:a d:b,c", "", nil, "a|bc||d|"},
		{"different keys", "a b", "w:x;w:y", nil, "ab||"},
		{"both read", "a b", "r:x;r:x", nil, "ab||"},
		{"write and write", "a b", "w:x;w:x", nil, "a|b|"},
		{"read then write", "a b", "r:x;w:x", nil, "a|b|"},
		{"write then read", "a b", "w:x;r:x", nil, "a|b|"},
		{"one of two keys", "a b", "r:x w:y;r:z r:y", nil, "a|b|"},
		{"readers between writers", "a b c d", "w:x;r:x;r:x;w:x", nil, "a|bc||d|"},
		{"within one step", "a b", "r:x w:x;", nil, "ab||"},
		{"conflict inside a diamond", "a b:a c:a d:b,c", ";w:x;w:x;", nil, "a|b|c|d|"},
		{"conflict across branches", "a b:a c d:c", ";w:x;w:x;", nil, "a|b|c|d|"},
		{"definition's order against the wave", "a:c b c", "w:x;w:x;", nil, "c|a|b|"},
		{"only after can turn a pair", "a:c b c", "w:x;w:x w:y;w:y", nil, "c|a|b|"},
		{"extra edge", "a b c", "", []Edge{{0, 2}}, "ab||c|"},
		{"extra edge backwards", "a b", "", []Edge{{1, 0}}, "b|a|"},
		{"extra edge against a conflict", "a b", "w:x;w:x", []Edge{{1, 0}}, "a|b|"},
		{"extra edges against each other", "a b", "", []Edge{{1, 0}, {0, 1}}, "b|a|"},
		{"extra edge of a step to itself", "a b", "", []Edge{{1, 1}}, "ab||"},
		{"extra edge in a linear workflow", "a b:a", "", []Edge{{1, 0}}, "a|b|"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, err := compileSteps(strings.Fields(tc.steps)...)
			if err != nil {
				t.Fatal(err)
			}
			own := trace(w, w.Schedule(nil, nil))
			if got := trace(w, w.Schedule(keyUses(tc.uses), tc.extra)); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if got := trace(w, w.Schedule(nil, nil)); got != own {
				t.Errorf("the workflow's own order was %s and became %s", own, got)
			}
		})
	}
}

// TestScheduleBefore: the order of an attempt is the definition's (a before b),
// a conflict's (b before c), an extra edge's (c before d), and what follows.
func TestScheduleBefore(t *testing.T) {
	w, err := compileSteps("a", "b:a", "c", "d", "e")
	if err != nil {
		t.Fatal(err)
	}
	s := w.Schedule(keyUses(";w:x;w:x;;"), []Edge{{2, 3}})
	for step, want := range []StepSet{0b00000, 0b00001, 0b00011, 0b00111, 0b00000} {
		if got := s.Before(step); got != want {
			t.Errorf("before step %d: got %05b, want %05b", step, got, want)
		}
	}
}

func TestScheduleRefusesStepsThatDoNotRun(t *testing.T) {
	w, err := compileSteps("a", "b:a")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		done []int // the last one must panic
	}{
		{"not handed out", []int{1}},
		{"twice", []int{0, 0}},
		{"no such step", []int{2}},
		{"negative", []int{-1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := w.Schedule(nil, nil)
			s.Ready()
			for _, step := range tc.done[:len(tc.done)-1] {
				s.Done(step)
			}
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			s.Done(tc.done[len(tc.done)-1])
		})
	}
}

// drawWorkflow draws a DAG of steps whose definition order is no help: the
// edges follow a hidden permutation.
func drawWorkflow(t *rapid.T) *Workflow {
	n := rapid.IntRange(1, 12).Draw(t, "steps")
	hidden := rapid.Permutation(seq(n)).Draw(t, "hidden order")
	density := rapid.IntRange(0, 4).Draw(t, "density")
	steps := make([]string, n)
	for at, i := range hidden {
		steps[i] = fmt.Sprintf("s%d:", i)
		for _, before := range hidden[:at] {
			if rapid.IntRange(0, 9).Draw(t, "edge") < density {
				steps[i] += fmt.Sprintf(",s%d", before)
			}
		}
	}
	w, err := compileSteps(steps...)
	if err != nil {
		t.Fatalf("an acyclic definition is refused: %v", err)
	}
	return w
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// TestScheduleProperties: every step runs exactly once, never before its
// predecessors, never beside a step that it conflicts with; of two conflicting
// steps the earlier in the definition goes first, unless after and the
// conflicts before it say otherwise; the order of uses does not matter.
func TestScheduleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorkflow(t)
		n := len(w.Steps)
		step := rapid.IntRange(0, n-1)
		uses := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) KeyUse {
			key := base.Key{Table: "t", Key: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "key")}
			return KeyUse{key, rapid.Bool().Draw(t, "write"), step.Draw(t, "step")}
		}), 0, 2*n).Draw(t, "uses")
		extra := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Edge {
			return Edge{step.Draw(t, "from"), step.Draw(t, "to")}
		}), 0, 3).Draw(t, "extra")

		serial := serialPairs(n, uses, extra)
		s := w.Schedule(uses, extra)
		shuffled := rapid.Permutation(uses).Draw(t, "shuffled")
		if other := w.Schedule(shuffled, extra); fmt.Sprint(other) != fmt.Sprint(s) {
			t.Fatalf("the order of uses matters: %v, %v", s, other)
		}

		position, running := make([]int, n), []int{}
		started, ended := StepSet(0), StepSet(0)
		start := func(ready StepSet) {
			for i := range ready.All() {
				if started.Has(i) {
					t.Fatalf("step %d started twice", i)
				}
				for _, a := range w.Steps[i].After {
					if !ended.Has(a) {
						t.Fatalf("step %d started before its predecessor %d ended", i, a)
					}
				}
				for _, r := range running {
					if serial[i][r] {
						t.Fatalf("steps %d and %d conflict and run side by side", i, r)
					}
				}
				position[i] = started.Len()
				started |= 1 << uint(i)
				running = append(running, i)
			}
		}
		start(s.Ready())
		for len(running) > 0 {
			if s.Finished() {
				t.Fatal("finished while steps run")
			}
			pick := rapid.IntRange(0, len(running)-1).Draw(t, "ends")
			i := running[pick]
			running = append(running[:pick:pick], running[pick+1:]...)
			ended |= 1 << uint(i)
			start(s.Done(i))
		}
		if started.Len() != n || !s.Finished() {
			t.Fatalf("%d of %d steps ran, finished %v", started.Len(), n, s.Finished())
		}
		checkDirections(t, w, serial, extra, position)
	})
}

// serialPairs returns which pairs of n steps may not run side by side.
func serialPairs(n int, uses []KeyUse, extra []Edge) [][]bool {
	serial := make([][]bool, n)
	for i := range serial {
		serial[i] = make([]bool, n)
	}
	for _, u := range uses {
		for _, v := range uses {
			if u.Key == v.Key && u.Step != v.Step && (u.Write || v.Write) {
				serial[u.Step][v.Step] = true
			}
		}
	}
	for _, e := range extra {
		serial[e.From][e.To] = e.From != e.To
		serial[e.To][e.From] = e.From != e.To
	}
	return serial
}

// checkDirections compares the order of conflicting pairs with the rule of
// Workflow.Schedule, computed anew by depth-first search: pairs in the
// definition's order, each from the earlier to the later step unless a path
// leads back.
func checkDirections(t *rapid.T, w *Workflow, serial [][]bool, extra []Edge, position []int) {
	edges := make([][]int, len(w.Steps))
	for i := range w.Steps {
		for _, a := range w.Steps[i].After {
			edges[a] = append(edges[a], i)
		}
	}
	var reaches func(from, to int) bool
	reaches = func(from, to int) bool {
		for _, next := range edges[from] {
			if next == to || reaches(next, to) {
				return true
			}
		}
		return false
	}
	add := func(from, to int) {
		if from != to && !reaches(to, from) {
			edges[from] = append(edges[from], to)
		}
	}
	isExtra := func(i, j int) bool {
		for _, e := range extra {
			if e == (Edge{i, j}) || e == (Edge{j, i}) {
				return true
			}
		}
		return false
	}
	for i := range serial {
		for j := i + 1; j < len(serial); j++ {
			// A pair that is extra as well may be there for either reason; if
			// any pair is, the directions of the rest are not known here.
			if serial[i][j] && isExtra(i, j) {
				return
			}
			if serial[i][j] {
				add(i, j)
			}
		}
	}
	for i := range edges {
		for _, j := range edges[i] {
			if position[i] > position[j] {
				t.Fatalf("step %d ran before %d: edges %v", j, i, edges)
			}
		}
	}
}

func TestStepSet(t *testing.T) {
	for _, want := range [][]int{nil, {0}, {63}, {0, 1, 5, 62, 63}} {
		var s StepSet
		for _, i := range want {
			s |= 1 << uint(i)
		}
		var got []int
		for i := range s.All() {
			got = append(got, i)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || s.Len() != len(want) || s.Has(7) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestScheduleOfMaxSteps(t *testing.T) {
	steps := make([]string, MaxSteps)
	for i := range steps {
		steps[i] = fmt.Sprintf("s%d", i)
	}
	w, err := compileSteps(steps...)
	if err != nil {
		t.Fatal(err)
	}
	all := ^StepSet(0)
	if s := w.Schedule(nil, nil); s.Ready() != all {
		t.Error("independent steps do not all start")
	}
	s := w.Schedule(keyUses(strings.Repeat("w:x;", MaxSteps)), nil)
	for i, ready := 0, s.Ready(); i < MaxSteps; i++ {
		if ready != 1<<uint(i) {
			t.Fatalf("step %d: ready %b", i, ready)
		}
		ready = s.Done(i)
	}
	if !s.Finished() {
		t.Error("not finished")
	}
}

func TestLinearScheduleAllocatesNothing(t *testing.T) {
	w, err := compileSteps("a", "b:a", "c:b")
	if err != nil {
		t.Fatal(err)
	}
	uses := keyUses("w:x;w:x;w:x")
	allocs := testing.AllocsPerRun(100, func() {
		s := w.Schedule(uses, nil)
		for ready := s.Ready(); ready != 0; {
			for i := range ready.All() {
				ready = s.Done(i)
			}
		}
		if !s.Finished() {
			t.Error("not finished")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkSchedule(b *testing.B) {
	for _, bc := range []struct {
		name, uses string
		steps      []string
	}{
		{"linear", "w:x;w:y;", []string{"a", "b:a", "c:b"}},
		{"parallel", "w:x;w:y;", []string{"a", "b", "c:a,b"}},
		{"conflicting", "w:x;w:x;", []string{"a", "b", "c:a,b"}},
	} {
		w, err := compileSteps(bc.steps...)
		if err != nil {
			b.Fatal(err)
		}
		uses := keyUses(bc.uses)
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := w.Schedule(uses, nil)
				for ready := s.Ready(); ready != 0; {
					next := StepSet(0)
					for i := range ready.All() {
						next |= s.Done(i)
					}
					ready = next
				}
				if !s.Finished() {
					b.Fatal("not finished")
				}
			}
		})
	}
}
