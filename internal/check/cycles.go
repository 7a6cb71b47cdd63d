package check

import (
	"math"
	"slices"
)

// findCycles reports cycles of dependencies, most severe first.
//
// The search goes through six subgraphs, from the dependencies that hardly any isolation level lets go in a circle to
// those that only strict serializability forbids. In each it takes the strongly connected components and reports one
// short cycle for each component. A component that holds a cycle of an earlier subgraph is passed over: it is most
// likely the same fault seen through weaker evidence, and a reader of the report wants each fault once.
func (a *analysis) findCycles(g *graph) {
	if _, n := g.components(ww | wr | rw | rt); int(n) == g.nodes {
		return // no cycle of any kind: the usual case, settled in linear time
	}
	s := newSearch(a, g)
	var cycles [][]edge
	for _, mask := range []edgeMask{ww, ww | wr, ww | wr | rw, ww | rt, ww | wr | rt, ww | wr | rw | rt} {
		// The subgraph before this one is the same without rw or wr; its numbering is a topological order of it, which
		// the search for single rw cycles uses.
		s.topology = s.component
		var count int32
		s.mask = mask
		s.component, count = g.components(mask)
		known := explained(s.component, count, cycles)
		for _, members := range s.groups(count) {
			if known[s.component[members[0]]] {
				continue
			}
			cycle := s.worstCycle(members)
			cycles = append(cycles, cycle)
			a.add(a.describe(g, cycle))
		}
	}
}

// explained tells which components hold all nodes of a cycle that was found before.
func explained(component []int32, count int32, cycles [][]edge) []bool {
	known := make([]bool, count)
	for _, cycle := range cycles {
		c := component[cycle[0].from]
		if !slices.ContainsFunc(cycle, func(e edge) bool { return component[e.from] != c }) {
			known[c] = true
		}
	}
	return known
}

// search finds short cycles inside the components of one subgraph.
type search struct {
	a *analysis
	g *graph

	mask      edgeMask
	component []int32
	topology  []int32 // components of the subgraph searched before
	budget    int     // edges that may still be visited for the sake of a shorter or more severe cycle

	// State of one breadth-first search. Only the nodes in touched have other than their initial values.
	dist    []int32
	via     []int32 // the edge by which the node was reached
	touched []int32
}

func newSearch(a *analysis, g *graph) *search {
	s := &search{a: a, g: g, budget: a.opt.SearchBudget, dist: make([]int32, g.nodes), via: make([]int32, g.nodes)}
	for n := range s.dist {
		s.dist[n] = math.MaxInt32
	}
	return s
}

// groups returns the members of each component with more than one node, ordered by the first member.
func (s *search) groups(count int32) [][]int32 {
	size := make([]int32, count)
	for _, c := range s.component {
		size[c]++
	}
	place := make([]int32, count) // in groups, from 1
	var groups [][]int32
	for n, c := range s.component {
		if size[c] == 1 {
			continue
		}
		if place[c] == 0 {
			groups = append(groups, make([]int32, 0, size[c]))
			place[c] = int32(len(groups))
		}
		groups[place[c]-1] = append(groups[place[c]-1], int32(n))
	}
	return groups
}

// worstCycle returns a short cycle through a component that holds no cycle of an earlier subgraph. Without rw in the
// mask all its cycles are of one kind. With rw, a cycle with a single rw is worse than any other.
func (s *search) worstCycle(members []int32) []edge {
	if s.mask&rw != 0 {
		if cycle := s.singleCycle(members); cycle != nil {
			return cycle
		}
	}
	return s.anyCycle(members)
}

// singleCycle looks for the shortest cycle with exactly one rw: for each rw edge, a way back without rw. It returns nil
// if there is none or if the budget ran out before one was found; the cycle is then reported as G2.
func (s *search) singleCycle(members []int32) []edge {
	mask, topology := s.mask&^rw, s.topology
	var candidates, others []edge
	for _, n := range members {
		for _, e := range s.out(n) {
			// The way back from e.to to e.from follows the topology downwards.
			if e.kind != rw || s.component[e.to] != s.component[n] || topology[e.to] < topology[e.from] {
				continue
			}
			if s.refuted(e) {
				candidates = append(candidates, e)
			} else {
				others = append(others, e)
			}
		}
	}
	var best []edge
	limit := int32(math.MaxInt32)
	for _, e := range append(candidates, others...) {
		if s.budget <= 0 || limit == 2 {
			break
		}
		if way := s.shortest(e.to, e.from, mask, topology, limit-2); way != nil {
			best = append([]edge{e}, way...)
			limit = transactions(s.g, best)
		}
	}
	return best
}

// anyCycle returns the shortest cycle through a component, or a short one if the budget runs out. Every member that is
// a transaction lies on a cycle, so the first search finds one.
func (s *search) anyCycle(members []int32) []edge {
	var starts, others []int32
	for _, n := range members {
		switch {
		case s.g.auxiliary(n):
		case slices.ContainsFunc(s.out(n), s.refuted):
			starts = append(starts, n)
		default:
			others = append(others, n)
		}
	}
	var best []edge
	limit := int32(math.MaxInt32)
	for i, n := range append(starts, others...) {
		if i > 0 && (s.budget <= 0 || limit == 2) {
			break
		}
		if cycle := s.shortest(n, n, s.mask, nil, limit-1); cycle != nil {
			best = cycle
			limit = transactions(s.g, best)
		}
	}
	return best
}

func (s *search) out(n int32) []edge { return s.g.edges[s.g.first[n]:s.g.first[n+1]] }

// refuted tells whether real time alone contradicts a dependency, which makes a cycle of two transactions. To try such
// edges first usually ends the search with the first attempt.
func (s *search) refuted(e edge) bool {
	if s.mask&rt == 0 || e.kind&(s.mask&^rt) == 0 || s.g.auxiliary(e.from) {
		return false
	}
	call := s.a.h[e.from].Call
	if !s.g.auxiliary(e.to) {
		return s.a.h[e.to].end() < call
	}
	return slices.ContainsFunc(s.out(e.to), func(l edge) bool { return !s.g.auxiliary(l.to) && s.a.h[l.to].end() < call })
}

// transactions counts the transactions of a cycle.
func transactions(g *graph, cycle []edge) (n int32) {
	for _, e := range cycle {
		if !g.auxiliary(e.from) {
			n++
		}
	}
	return n
}

// shortest returns the shortest path from one node to another, or around a cycle if they are the same, inside their
// component; nil if there is none with at most limit steps. A step leaves a transaction: auxiliary nodes are free. With
// a topology the search leaves out nodes which cannot reach the target.
func (s *search) shortest(from, to int32, mask edgeMask, topology []int32, limit int32) []edge {
	mask |= link
	defer s.forget()
	s.reach(from, 0, -1)
	found, last := int32(math.MaxInt32), int32(-1) // the steps to the target, and the edge into it
	layer, following := []int32{from}, []int32(nil)
	for d := int32(0); len(layer) > 0 && d < found && d <= limit; d++ {
		following = following[:0]
		for i := 0; i < len(layer); i++ { // layer grows by the free steps
			n := layer[i]
			if s.dist[n] != d {
				continue // reached by a shorter way meanwhile
			}
			steps := d
			if !s.g.auxiliary(n) {
				steps++
			}
			for x := s.g.first[n]; x < s.g.first[n+1]; x++ {
				e := &s.g.edges[x]
				s.budget--
				switch {
				case e.kind&mask == 0 || s.component[e.to] != s.component[from]:
				case e.to == to:
					if steps < found && steps <= limit {
						found, last = steps, x
					}
				case topology != nil && topology[e.to] < topology[to]:
				case steps < s.dist[e.to]:
					s.reach(e.to, steps, x)
					if steps == d {
						layer = append(layer, e.to)
					} else {
						following = append(following, e.to)
					}
				}
			}
		}
		layer, following = following, layer
	}
	if last < 0 {
		return nil
	}
	var path []edge
	for x := last; x >= 0; x = s.via[s.g.edges[x].from] {
		path = append(path, s.g.edges[x])
	}
	slices.Reverse(path)
	return path
}

func (s *search) reach(n, dist, via int32) {
	if s.dist[n] == math.MaxInt32 {
		s.touched = append(s.touched, n)
	}
	s.dist[n], s.via[n] = dist, via
}

func (s *search) forget() {
	for _, n := range s.touched {
		s.dist[n] = math.MaxInt32
	}
	s.touched = s.touched[:0]
}
