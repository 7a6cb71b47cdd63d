// Package cluster is the processes of a cluster without what is outside of them:
// RunControl is membership, catalogue and store, RunWorker one worker, and Gateway
// what a gateway asks. Each is given its parts, an engine, a provider of verbs, a
// loader of modules, a server and a way to others, and owns the goroutines between
// them.
//
// Package node opens the real parts, sim simulated ones: so what a simulation
// finds is true of the processes. Start reading at RunWorker.
package cluster
