package rdmatest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// Options scale the suite to the machine. Zero values are the defaults.
type Options struct {
	// Rounds is how often loops repeat; 0 means 300. On an emulated device, 100
	// take a third of the time.
	Rounds int
	// Largest is the longest READ and WRITE, in bytes; 0 means 1 MiB. The limit of
	// the provider counts as well.
	Largest int
	// Bound is how long anything may take before it counts as hung; 0 means 20
	// seconds. Nothing waits for it unless something is wrong.
	Bound time.Duration
	// Timeout is the QueuePairOptions.Timeout where a peer is to die or revoke; 0
	// means 400 ms. Several behaviours last as long.
	Timeout time.Duration
	// Window is how long behaviours look at what must not happen: memory that
	// changes after a revocation, an idle node that uses its processor; 0 means
	// 300 ms.
	Window time.Duration
	// Share is the part of a window that an idle node may use its processor for, in
	// percent; 0 means 33: a busy machine charges it with what others did.
	Share int
}

func (o *Options) ensureDefaults() {
	if o.Rounds == 0 {
		o.Rounds = 300
	}
	if o.Largest == 0 {
		o.Largest = 1 << 20
	}
	if o.Bound == 0 {
		o.Bound = 20 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 400 * time.Millisecond
	}
	if o.Window == 0 {
		o.Window = 300 * time.Millisecond
	}
	if o.Share == 0 {
		o.Share = 33
	}
}

// reporter is the part of testing.T that behaviours use, so that the suite can
// be run over providers on which it must fail.
type reporter interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// behaviour is one demand of the contract.
type behaviour struct {
	name string
	run  func(*scene)
	// processes says that it needs nodes in processes of their own.
	processes bool
}

// behaviours are all demands. Their order is that in which a new provider
// should come to meet them.
func behaviours() []behaviour {
	return []behaviour{
		{name: "RegisterGivesZeroedAlignedMemory", run: registerGivesMemory},
		{name: "OptionsAreChecked", run: optionsAreChecked},
		{name: "NotConnectedIsBroken", run: notConnectedIsBroken},
		{name: "BadAddressesAreRefused", run: badAddresses},
		{name: "WriteEverySizeAndAlignment", run: writeEverySize},
		{name: "ReadEverySizeAndAlignment", run: readEverySize},
		{name: "WriteImmEverySizeAndAlignment", run: writeImmEverySize},
		{name: "QueuePairIsItsOwnPeer", run: ownPeer},
		{name: "InlinePayloadIsCopiedByPost", run: inlinePayloadIsCopied},
		{name: "AcceptedEndMayPostFirst", run: acceptedMayPostFirst},
		{name: "ReconnectManyTimes", run: reconnectManyTimes},

		{name: "EmptyBatchDoesNothing", run: emptyBatchDoesNothing},
		{name: "BatchLargerThanTheQueue", run: batchLargerThanQueue},
		{name: "PolledCompletionsFreeTheirSlots", run: completionsFreeSlots},
		{name: "UnsignaledBatches", run: unsignaledBatches},
		{name: "MalformedRequestsAreRefusedByPost", run: malformedRequestsAreRefused},
		{name: "LimitsHold", run: limitsHold},

		{name: "AtomicsOneByOne", run: atomicsOneByOne},
		{name: "FAAFromManyAddsUp", run: faaFromManyAddsUp},
		{name: "CASFromManyAddsUp", run: casFromManyAddsUp},
		{name: "WordsAreNeverHalf", run: wordsAreNeverHalf},

		{name: "WriteThenWriteInOrder", run: writeThenWrite},
		{name: "WriteThenAtomicInOrder", run: writeThenAtomic},
		{name: "WriteIsSeenByWhatFollows", run: writeThenItself},
		{name: "DoorbellComesAfterItsData", run: doorbellComesAfterData},
		{name: "FenceHoldsBack", run: fenceHoldsBack},

		{name: "DoorbellsCarryImmAndLength", run: doorbellsCarryImm},
		{name: "DoorbellsWakeWaiters", run: doorbellsWakeWaiters},
		{name: "DoorbellsAreNeverDropped", run: doorbellsAreNeverDropped},
		{name: "DoorbellsWaitForRoom", run: doorbellsWaitForRoom},
		{name: "IdleWaitUsesNoCPU", run: idleWaitUsesNoCPU},
		{name: "WaitEndsWithItsContextAndItsQueue", run: waitEnds},

		{name: "RemoteBoundsHold", run: remoteBoundsHold},
		{name: "UnevenBoundsHold", run: unevenBoundsHold},
		{name: "ClosedRegionsStayClosed", run: closedRegionsStayClosed},
		{name: "LocalBoundsHold", run: localBoundsHold},
		{name: "RegionsCloseUnderFire", run: regionsCloseUnderFire},

		{name: "RevocationIsAlwaysPossible", run: revocationIsAlwaysPossible},
		{name: "RevocationFlushesOwnRequests", run: revocationFlushesOwn},
		{name: "RevocationUnderFire", run: revocationUnderFire},
		{name: "UnknownIsDecidedAfterReconnect", run: unknownIsDecidedAfterReconnect},

		{name: "PeerDiesBeforeConnect", run: peerDiesBeforeConnect},
		{name: "PeerDiesIdle", run: peerDiesIdle},
		{name: "PeerDiesUnderRequests", run: peerDiesUnderRequests},
		{name: "PeerDiesWhileRevoked", run: peerDiesWhileRevoked},
		{name: "PeerStops", run: peerStops, processes: true},
		{name: "PeerStopsWhileRequestsTrickle", run: peerStopsUnderTrickle, processes: true},

		{name: "ManyPostersAndWaiters", run: manyPostersAndWaiters},
		{name: "OthersComeAndGo", run: othersComeAndGo},
		{name: "CountersCount", run: countersCount},
		{name: "CloseOrderIsEnforced", run: closeOrderIsEnforced},
		{name: "CompletionsOutliveTheirQueuePair", run: completionsOutliveTheirQueuePair},
		{name: "UnpolledCompletionsKeepTheirPlaces", run: unpolledKeepTheirPlaces},
	}
}

// Run runs the whole suite on the cluster, each behaviour as a subtest.
func Run(t *testing.T, c Cluster, options Options) {
	options.ensureDefaults()
	s := newSession(c, options)
	defer s.finish(t)
	for _, b := range behaviours() {
		if !b.processes || c.processes() {
			t.Run(b.name, func(t *testing.T) { s.run(t, b) })
		}
	}
}

// session is the nodes of one Run. Those that behaviours share stay for all of
// it; a behaviour that breaks one makes the next start another.
type session struct {
	cluster Cluster
	options Options
	shared  map[string]*host
	started int
}

func newSession(c Cluster, options Options) *session {
	return &session{cluster: c, options: options, shared: map[string]*host{}}
}

// host is a node as it lives through several behaviours.
type host struct {
	opened
	name string
	site int
	link link
	// dead says that the link is closed: the node was closed, killed or given up.
	dead bool
}

// sites of the shared nodes: b owns the memory in most behaviours, a and c are
// its peers. On two machines, a and c are here.
var sites = map[string]int{"a": 0, "b": 1, "c": 0}

// run runs one behaviour and checks that its nodes hold what they held before.
func (s *session) run(t reporter, b behaviour) {
	t.Helper()
	sc := s.scene(t)
	for name, site := range sites {
		if h := s.shared[name]; h == nil || h.dead {
			s.shared[name] = s.start(t, name, site)
		}
	}
	before := map[string]map[string]int{}
	for name, h := range s.shared {
		before[name] = ask[handleCounts](sc.on(h), doHandles{}).Open
	}
	sc.a, sc.b, sc.c = sc.on(s.shared["a"]), sc.on(s.shared["b"]), sc.on(s.shared["c"])
	defer sc.end(before)
	b.run(sc)
}

// start starts a node under a name that no other had.
func (s *session) start(t reporter, name string, site int) *host {
	t.Helper()
	s.started++
	l, err := s.cluster.start(name, site)
	if err != nil {
		t.Fatalf("start node %s: %v", name, err)
	}
	h := &host{name: fmt.Sprintf("%s-%d", name, s.started), site: site, link: l}
	h.opened = ask[opened](s.scene(t).on(h), doOpen{h.name})
	return h
}

// finish closes the shared nodes.
func (s *session) finish(t reporter) {
	t.Helper()
	sc := s.scene(t)
	for _, h := range s.shared {
		sc.on(h).finish()
	}
}

// scene is one behaviour under way: what fails it, and its nodes.
type scene struct {
	reporter
	Options
	session *session
	// a, b and c are the shared nodes.
	a, b, c *node
	fresh   map[string]*node
	// pending are the operations whose answers were not taken yet.
	pending map[*pending]bool
}

// scene begins a scene.
func (s *session) scene(t reporter) *scene {
	return &scene{reporter: t, Options: s.options, session: s, fresh: map[string]*node{}, pending: map[*pending]bool{}}
}

func (sc *scene) on(h *host) *node { return &node{reporter: sc.reporter, host: h, scene: sc} }

// start starts a node that lives at most as long as the behaviour.
func (sc *scene) start(name string, site int) *node {
	sc.Helper()
	n := sc.on(sc.session.start(sc, name, site))
	sc.fresh[n.name] = n
	return n
}

// breakOff ends what a behaviour that failed has left running: whoever looks at
// memory must not do so when that is unmapped.
func (sc *scene) breakOff() {
	sc.Helper()
	if len(sc.pending) == 0 {
		return
	}
	nodes := slices.Collect(maps.Values(sc.fresh))
	for _, h := range sc.session.shared {
		nodes = append(nodes, sc.on(h))
	}
	for _, n := range nodes {
		if !n.dead {
			if _, err := n.try(doBreakOff{}); err != nil {
				sc.Errorf("close the queue pairs and completion queues of node %s: %v", n.name, err)
			}
		}
	}
	for p := range sc.pending {
		if !p.node.dead {
			_, _ = p.try() // the behaviour did not care for it
		}
	}
}

// end closes what the behaviour has opened and checks that nothing else is left.
func (sc *scene) end(before map[string]map[string]int) {
	sc.Helper()
	sc.breakOff()
	for _, n := range sc.fresh {
		n.finish()
	}
	for name, h := range sc.session.shared {
		if n := sc.on(h); !n.dead {
			if _, err := n.try(doReset{}); err != nil {
				sc.Errorf("close the handles of node %s: %v", name, err)
			}
		}
	}
	for name, h := range sc.session.shared {
		if h.dead {
			continue
		}
		v, err := sc.on(h).try(doHandles{})
		if err != nil {
			sc.Errorf("node %s: %v", name, err)
			continue
		}
		if after := v.(handleCounts); !maps.Equal(after.Open, before[name]) || len(after.Lost) > 0 {
			sc.Errorf("node %s has these open handles: %v, before the behaviour it had %v; lost without Close: %v", name, after.Open, before[name], after.Lost)
		}
	}
}
