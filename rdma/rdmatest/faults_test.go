package rdmatest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is a reporter that notes failures.
type recorder struct {
	mu       sync.Mutex
	failures []string
}

func (*recorder) Helper()             {}
func (*recorder) Logf(string, ...any) {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// watched is a cluster in this process whose links are remembered.
type watched struct {
	inProcess
	links *[]*localLink
}

func (w watched) start(string, int) (link, error) {
	l := &localLink{agent: newAgent(w.open)}
	*w.links = append(*w.links, l)
	return l, nil
}

// examine runs one behaviour over nodes of a world and returns what it found.
func examine(t *testing.T, w *world, name string) []string {
	t.Helper()
	options := Options{Rounds: 100, Largest: 1 << 17, Bound: 500 * time.Millisecond, Timeout: 50 * time.Millisecond, Window: 100 * time.Millisecond, Share: 12}
	options.ensureDefaults()
	for _, b := range behaviours() {
		if b.name != name {
			continue
		}
		r := &recorder{}
		c := watched{inProcess{w.open, func(string) {}}, new([]*localLink)}
		var wg sync.WaitGroup
		wg.Go(func() {
			s := newSession(c, options)
			defer s.finish(r)
			s.run(r, b)
		})
		wg.Wait()
		for _, l := range *c.links {
			l.running.Wait() // also for what was given up
		}
		return r.failures
	}
	t.Fatalf("there is no behaviour %s", name)
	return nil
}

// plantedFaults are the ways in which the plain provider can break the contract,
// with the behaviours that must find each, and words of what they must say.
func plantedFaults() []struct{ fault, behaviour, says string } {
	return []struct{ fault, behaviour, says string }{
		{"memory is not zeroed", "RegisterGivesZeroedAlignedMemory", "not zeroed"},
		{"addresses unchecked", "BadAddressesAreRefused", "accepted"},
		{"odd addresses lose a byte", "WriteEverySizeAndAlignment", "are wrong"},
		{"odd addresses lose a byte", "WriteImmEverySizeAndAlignment", "are wrong"},
		{"writes a byte too many", "WriteEverySizeAndAlignment", "outside of what was written"},
		{"READ ends at a page", "ReadEverySizeAndAlignment", "are wrong"},
		{"inline read late", "InlinePayloadIsCopiedByPost", "overwritten after Post"},
		{"completes unsignaled", "WriteEverySizeAndAlignment", "completion"},
		{"completes unsignaled", "UnsignaledBatches", "is not signaled"},
		{"completes twice", "BatchLargerThanTheQueue", "completion"},
		{"loses completions", "BatchLargerThanTheQueue", "completions came|a full queue takes"},
		{"loses completions", "ManyPostersAndWaiters", "completions came"},
		{"wrong IDs", "LimitsHold", "before it has not"},
		{"queue too short", "BatchLargerThanTheQueue", "were taken"},
		{"queue too long", "BatchLargerThanTheQueue", "were taken"},
		{"full queues lose a request", "BatchLargerThanTheQueue", "in batches found"},
		{"full queues lose a request", "UnsignaledBatches", "add up to"},
		{"batches interleave", "ManyPostersAndWaiters", "which was posted at once"},
		{"checks the batch first", "MalformedRequestsAreRefusedByPost", "0 were taken"},
		{"malformed requests break", "MalformedRequestsAreRefusedByPost", "the device failed"},
		{"takes misaligned atomics", "MalformedRequestsAreRefusedByPost", "were taken"},

		{"CAS exchanges its operands", "AtomicsOneByOne", "the word became"},
		{"CAS always stores", "AtomicsOneByOne", "CAS that finds something else"},
		{"CAS compares half", "AtomicsOneByOne", "CAS of half a word"},
		{"FAA stops at the top", "AtomicsOneByOne", "wraps around"},
		{"FAA adds halves", "AtomicsOneByOne", "carries into"},
		{"FAA is not atomic", "FAAFromManyAddsUp", "found, in order of size"},
		{"CAS always stores", "CASFromManyAddsUp", "increments"},
		{"old words in the wrong byte order", "AtomicsOneByOne", "reports that it found"},
		{"reports the new word", "AtomicsOneByOne", "reports that it found"},
		{"reports nothing", "AtomicsOneByOne", "reports that it found"},
		{"words move in halves", "WordsAreNeverHalf", "the word 0x"},

		{"WRITE overtakes WRITE", "WriteThenWriteInOrder", "slot"},
		{"atomics overtake WRITE", "WriteThenAtomicInOrder", "slot"},
		{"atomics overtake WRITE", "WriteIsSeenByWhatFollows", "finds after a WRITE"},
		{"ignores Fence", "FenceHoldsBack", "followed by a fenced WRITE"},
		{"doorbell before data", "DoorbellComesAfterItsData", "its data is not there"},

		{"loses Imm", "DoorbellsCarryImmAndLength", "want"},
		{"loses Length", "DoorbellsCarryImmAndLength", "want"},
		{"drops doorbells", "DoorbellsAreNeverDropped", "completions came"},
		{"Wait looks once", "DoorbellsWakeWaiters", "doorbells came"},
		{"Wait spins", "IdleWaitUsesNoCPU", "processor time"},
		{"Wait ignores its context", "WaitEndsWithItsContextAndItsQueue", "has not returned"},
		{"Wait ends early", "WaitEndsWithItsContextAndItsQueue", "want 0 and"},

		{"bounds unchecked", "RemoteBoundsHold", "ended as|3 of 4 completions"},
		{"bounds unchecked", "UnevenBoundsHold", "ended as|3 of 4 completions"},
		{"bounds unchecked", "ClosedRegionsStayClosed", "ended as|3 of 4 completions"},
		{"bounds unchecked", "RegionsCloseUnderFire", "Wait ended with"},
		{"half a WRITE is not done", "RegionsCloseUnderFire", "had seen a part"},
		{"wrong status", "RemoteBoundsHold", "no answer"},
		{"writes what is inside", "RemoteBoundsHold", "the region that was aimed at"},
		{"writes what is inside", "UnevenBoundsHold", "are wrong"},
		{"rings all the same", "RemoteBoundsHold", "at the peer arrived"},
		{"failures break all", "RemoteBoundsHold", "is broken or not connected"},
		{"goes on after a failure", "RemoteBoundsHold", "ended as"},
		{"flushes one only", "RemoteBoundsHold", "completions came"},
		{"flushes as done", "RemoteBoundsHold", "what was posted after it"},
		{"local keys unchecked", "LocalBoundsHold", "ended as"},

		{"Revoke revokes nothing", "RevocationUnderFire", "changes afterwards"},
		{"Close revokes nothing", "RevocationUnderFire", "changes afterwards"},
		{"revokes late", "RevocationUnderFire", "changes afterwards"},
		{"revokes in the middle", "RevocationUnderFire", "changes afterwards"},
		{"lands after revocation", "RevocationUnderFire", "changes afterwards"},
		{"goes well after revocation", "RevocationUnderFire", "ended with"},
		{"never gives up", "RevocationUnderFire", "Wait ended with"},
		{"own requests outlive Revoke", "RevocationFlushesOwnRequests", "completions came"},
		{"flushes one only", "RevocationFlushesOwnRequests", "completions came"},
		{"flushes as done", "RevocationFlushesOwnRequests", "came, request"},

		{"never gives up", "PeerDiesIdle", "completions came"},
		{"never gives up", "PeerDiesUnderRequests", "Wait ended with"},
		{"goes well after revocation", "PeerDiesIdle", "is not broken"},

		{"counts what it refuses", "CountersCount", "counts"},
		{"forgets the counters of closed queue pairs", "CountersCount", "counts"},
		{"closes in use", "CloseOrderIsEnforced", "ErrInUse"},
		{"queues close in use", "CloseOrderIsEnforced", "ErrInUse"},
		{"Close once only", "CloseOrderIsEnforced", "a queue pair"},
		{"Close once only", "RevocationIsAlwaysPossible", "closed"},
		{"completions of closed queue pairs pile up", "UnpolledCompletionsKeepTheirPlaces", "of 64 places"},
		{"leaks a handle", "EmptyBatchDoesNothing", "open handles"},
	}
}

// TestPlantedFaultsAreFound shows that the suite can fail: each behaviour must
// find the faults that it is there for.
func TestPlantedFaultsAreFound(t *testing.T) {
	for _, p := range plantedFaults() {
		t.Run(strings.ReplaceAll(p.fault, " ", "-")+"/"+p.behaviour, func(t *testing.T) {
			switch p.behaviour {
			case "EmptyBatchDoesNothing", "IdleWaitUsesNoCPU": // they look at all of this process
			default:
				t.Parallel()
			}
			w := newWorld(p.fault)
			defer w.mend()
			var found []string
			// Some faults show in a moment that may pass unseen, where the machine is
			// busy with something else.
			for range 40 { // on a busy machine ten have not been enough
				found = examine(t, w, p.behaviour)
				if i := slices.IndexFunc(found, func(f string) bool { return says(f, p.says) }); i >= 0 {
					t.Logf("found: %.300s", found[i])
					return
				}
			}
			t.Errorf("the failures are %q, want one with %q", found, p.says)
		})
	}
}

// says says whether a failure has one of the wordings, which are separated by |.
func says(failure, wordings string) bool {
	for w := range strings.SplitSeq(wordings, "|") {
		if strings.Contains(failure, w) {
			return true
		}
	}
	return false
}
