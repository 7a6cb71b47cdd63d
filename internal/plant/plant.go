// Package plant names the bugs that tests plant in the transaction code to
// show that the checkers find them. A checker that has never failed proves
// nothing.
//
// In an ordinary build Is is the constant false and the planted code is not
// compiled. With the build tag "plant" the environment variable TENURE_PLANT
// names the one bug that is active. `make plant` runs the checkers against
// each of them.
package plant

// Bug names a planted bug.
type Bug string

// The bugs.
const (
	// NoReadLock lets reads take no lock: write skew, read skew.
	NoReadLock Bug = "no-read-lock"
	// EarlyReadRelease gives shared locks back before the commit: write skew.
	EarlyReadRelease Bug = "early-read-release"
	// BlindUpgrade strengthens a shared lock although others hold it: lost updates.
	BlindUpgrade Bug = "blind-upgrade"
	// NoGate lets scans and writes pass each other: phantoms.
	NoGate Bug = "no-gate"
	// StaleSum adds to the value seen at Add instead of the newest: lost adds.
	StaleSum Bug = "stale-sum"
	// AbortApplies commits what an aborted transaction wrote: aborted reads.
	AbortApplies Bug = "abort-applies"
	// WriteThrough shows a write before the commit: intermediate reads.
	WriteThrough Bug = "write-through"
	// StaleCache forgets now and then to bring the cached value up to date:
	// stale reads, lost updates.
	StaleCache Bug = "stale-cache"
	// SplitCommit releases each key as soon as it is written, and commits every
	// key by itself: half transactions.
	SplitCommit Bug = "split-commit"
	// NoFlight lets duplicates of an idempotency key run side by side: two effects.
	NoFlight Bug = "no-flight"
	// NoBarrier answers before the commit is durable: lost acknowledged commits.
	NoBarrier Bug = "no-barrier"
)

// All lists the bugs that history checkers must find, in the order above.
var All = []Bug{
	NoReadLock, EarlyReadRelease, BlindUpgrade, NoGate, StaleSum, AbortApplies,
	WriteThrough, StaleCache, SplitCommit,
}
