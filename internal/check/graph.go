package check

// edgeMask is a set of edge kinds.
type edgeMask uint8

const (
	ww edgeMask = 1 << iota
	wr
	rw
	rt
	// link leaves an auxiliary node that was entered by rw. It carries no meaning of its own and is always followed.
	link
)

// edge says that the transaction from comes before the transaction to, or leads through an auxiliary node.
type edge struct {
	from, to int32 // nodes
	key      int32 // of ww, wr, rw and link
	kind     edgeMask
	elem     int64 // ww, rw and link: the append of to; wr: the append of from
}

// graph is a directed graph in compressed rows. The first nodes are the transactions, by their index in the history;
// the nodes after them are auxiliary: they replace an all-to-all set of edges by one hub (dependencies.go, realtime.go).
// A path through auxiliary nodes stands for one edge, which has the kind by which the first of them is entered.
type graph struct {
	txns  int // nodes below this number are transactions
	nodes int
	edges []edge  // after freeze: sorted by from
	first []int32 // after freeze: the edges of node n are edges[first[n]:first[n+1]]
}

func (g *graph) newNode() int32 {
	g.nodes++
	return int32(g.nodes - 1)
}

func (g *graph) auxiliary(node int32) bool { return int(node) >= g.txns }

// freeze sorts the edges by their origin, keeping the order of insertion within an origin.
func (g *graph) freeze() {
	g.first = make([]int32, g.nodes+1)
	for i := range g.edges {
		g.first[g.edges[i].from+1]++
	}
	for n := range g.nodes {
		g.first[n+1] += g.first[n]
	}
	next := make([]int32, g.nodes)
	copy(next, g.first)
	sorted := make([]edge, len(g.edges))
	for _, e := range g.edges {
		sorted[next[e.from]] = e
		next[e.from]++
	}
	g.edges = sorted
}

// components numbers the strongly connected components of the subgraph of the edge kinds in mask, by Tarjan's
// algorithm with an explicit stack: histories are deep. A component is numbered after everything that it reaches, so
// whenever u reaches v, component[u] >= component[v].
func (g *graph) components(mask edgeMask) (component []int32, count int32) {
	mask |= link
	const unvisited = 0
	index := make([]int32, g.nodes) // order of discovery, from 1
	low := make([]int32, g.nodes)   // the earliest discovered node on the stack which the subtree reaches
	next := make([]int32, g.nodes)  // the next edge to follow
	copy(next, g.first)
	component = make([]int32, g.nodes)
	for n := range component {
		component[n] = -1
	}
	var path, stack []int32 // the nodes being explored; the nodes without a component yet
	var discovered int32

	discover := func(n int32) {
		discovered++
		index[n], low[n] = discovered, discovered
		path = append(path, n)
		stack = append(stack, n)
	}
	for root := range int32(g.nodes) {
		if index[root] != unvisited {
			continue
		}
		discover(root)
		for len(path) > 0 {
			n := path[len(path)-1]
			if next[n] < g.first[n+1] {
				e := &g.edges[next[n]]
				next[n]++
				switch {
				case e.kind&mask == 0:
				case index[e.to] == unvisited:
					discover(e.to)
				case component[e.to] < 0:
					low[n] = min(low[n], index[e.to])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				parent := path[len(path)-1]
				low[parent] = min(low[parent], low[n])
			}
			if low[n] != index[n] {
				continue
			}
			for component[n] < 0 {
				component[stack[len(stack)-1]] = count
				stack = stack[:len(stack)-1]
			}
			count++
		}
	}
	return component, count
}
