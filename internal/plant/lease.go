package plant

// The bugs of the lease protocol: rules of its document that are broken one at a
// time, some in the core, some in the cluster that the adversary of package lease
// runs. The comment says what the rule is for.
const (
	// SkipFence keeps the queue pairs of workers that left: their verbs land.
	SkipFence Bug = "skip-fence"
	// NoSeal lets the store accept batches of older views.
	NoSeal Bug = "no-seal"
	// SealLate publishes the view before the store is sealed.
	SealLate Bug = "seal-late"
	// FencePerKey checks versions at the store instead of views.
	FencePerKey Bug = "fence-per-key"
	// WriteRelease releases by WRITE: erases a requester that has swung the tail.
	WriteRelease Bug = "write-release"
	// IgnoreView takes grants of an older view.
	IgnoreView Bug = "ignore-view"
	// AcceptOldReq takes requests of an older view.
	AcceptOldReq Bug = "accept-old-req"
	// ForgetReader grants without the list of readers.
	ForgetReader Bug = "forget-reader"
	// GrantBeforeDurable lets values leave that a crash can take back.
	GrantBeforeDurable Bug = "grant-before-durable"
	// NoOrder takes slots in any order: deadlock.
	NoOrder Bug = "no-order"
	// UnknownFailed takes an unknown acquisition for not done.
	UnknownFailed Bug = "unknown-failed"
	// UnknownDone takes an unknown acquisition for done.
	UnknownDone Bug = "unknown-done"
	// UnknownReleaseDone takes an unknown release for done.
	UnknownReleaseDone Bug = "unknown-release-done"
	// UnknownReleaseKept takes an unknown release for not done.
	UnknownReleaseKept Bug = "unknown-release-kept"
	// RebuildEarly rebuilds words before all have reported.
	RebuildEarly Bug = "rebuild-early"
	// NoDrain reports before the own verbs of the old view have landed.
	NoDrain Bug = "no-drain"
	// NoSelfFence answers reads after the own time-out.
	NoSelfFence Bug = "no-self-fence"
	// EarlyDeclare evicts before the time-out has passed.
	EarlyDeclare Bug = "early-declare"
	// NoInval writes while copies are alive.
	NoInval Bug = "no-inval"
	// NoFloor takes a copy that an invalidation has overtaken.
	NoFloor Bug = "no-floor"
	// UnsolicitedCopy takes a copy that was not asked for.
	UnsolicitedCopy Bug = "unsolicited-copy"
	// AckPinned acknowledges while the copy is pinned.
	AckPinned Bug = "ack-pinned"
	// AckAnyRound lets an old acknowledgement remove a younger copy.
	AckAnyRound Bug = "ack-any-round"
	// IgnoreTicket takes a grant for whatever node waits.
	IgnoreTicket Bug = "ignore-ticket"
	// PipelineAnyOrder applies batches in any order.
	PipelineAnyOrder Bug = "pipeline-any-order"
	// BatchKeepsView resends batches with the view they were made in.
	BatchKeepsView Bug = "batch-keeps-view"
	// ClearOnInstall forgets living readers at a view change.
	ClearOnInstall Bug = "clear-on-install"
	// ReadyClearsAll forgets readers of the new view at activation.
	ReadyClearsAll Bug = "ready-clears-all"
	// NoFair lets local users go before a successor without bound.
	NoFair Bug = "no-fair"
	// ReleaseDirty frees a slot whose values are not durable.
	ReleaseDirty Bug = "release-dirty"
	// ReleaseReaders frees a slot that has readers.
	ReleaseReaders Bug = "release-readers"
	// KeepCopies keeps copies over a view change.
	KeepCopies Bug = "keep-copies"
	// AckBeforeDurable answers before the commit is durable.
	AckBeforeDurable Bug = "ack-before-durable"
	// NoReconnect goes on without the peer having destroyed the old queue pair.
	NoReconnect Bug = "no-reconnect"
	// UndeclaredWaits waits for an undeclared slot out of order: deadlock.
	UndeclaredWaits Bug = "undeclared-waits"
	// CASNoTicket compares view and owner only.
	CASNoTicket Bug = "cas-no-ticket"
	// EarlyInval sends invalidations to readers that are still in the old view.
	EarlyInval Bug = "early-inval"
	// GuessAmbiguous calls an unknown CAS with a wrong guess undecidable.
	GuessAmbiguous Bug = "guess-ambiguous"
	// ForgetWord forgets the word of an idle slot: a ticket is used twice.
	ForgetWord Bug = "forget-word"
	// GrantOverPin hands the lease on while the own copy is pinned.
	GrantOverPin Bug = "grant-over-pin"
	// LimboKeepsRequests lets readers wait for a node that stays undecided: one
	// seed in 20,000, so package lease has its story as a test.
	LimboKeepsRequests Bug = "limbo-keeps-requests"
	// AckDirtyGate gives the copy of a gate up before what its users wrote is
	// durable.
	AckDirtyGate Bug = "ack-dirty-gate"
	// ReportDirty reports before what users of gates wrote is durable.
	ReportDirty Bug = "report-dirty"
	// HintAgain asks whom a remembered word names again after a refusal, instead of
	// reading the word: for ever.
	HintAgain Bug = "hint-again"
	// CopyWithoutLease answers a request for a copy that comes after the lease was
	// passed on, as it may when the reader goes by a remembered word.
	CopyWithoutLease Bug = "copy-without-lease"
)

// Lease lists the bugs that the adversary must find, in the order above.
var Lease = []Bug{
	SkipFence, NoSeal, SealLate, FencePerKey, WriteRelease, IgnoreView, AcceptOldReq, ForgetReader, GrantBeforeDurable, NoOrder,
	UnknownFailed, UnknownDone, UnknownReleaseDone, UnknownReleaseKept, RebuildEarly, NoDrain, NoSelfFence, EarlyDeclare,
	NoInval, NoFloor, UnsolicitedCopy, AckPinned, AckAnyRound, IgnoreTicket, PipelineAnyOrder, BatchKeepsView,
	ClearOnInstall, ReadyClearsAll, NoFair, ReleaseDirty, ReleaseReaders, KeepCopies, AckBeforeDurable, NoReconnect,
	UndeclaredWaits, CASNoTicket, EarlyInval, GuessAmbiguous, ForgetWord, GrantOverPin,
	AckDirtyGate, ReportDirty, HintAgain, CopyWithoutLease,
}

// The bugs of the shells around the protocol that only a simulation of whole
// clusters meets.
const (
	// RepeatUnknown sends an invocation whose outcome is unknown to another worker.
	RepeatUnknown Bug = "repeat-unknown"
	// KeepUnavailable keeps the record of an invocation that a worker could not
	// serve, and that another one has served meanwhile. Simulations find it once in
	// some thousand seeds, so package worker has a test.
	KeepUnavailable Bug = "keep-unavailable"
)

// Cluster lists the bugs that simulations of whole clusters must find.
var Cluster = []Bug{
	AcceptOldReq, ForgetReader, IgnoreView, UnknownDone, UnknownFailed, AckPinned, CopyWithoutLease, GrantBeforeDurable, NoInval,
	KeepCopies, ReadyClearsAll, GuessAmbiguous, NoSeal, BatchKeepsView, RebuildEarly, SkipFence,
	NoBarrier, NoGate, BlindUpgrade, NoReadLock, StaleCache, StaleSum, AbortApplies, NoFlight, EarlyReadRelease, WriteThrough, SplitCommit,
}
