package sim

import (
	"errors"
	"fmt"
	"time"
)

// Range is a range of virtual time; a value is drawn evenly from Min to Max.
type Range struct{ Min, Max time.Duration }

// or replaces the zero value.
func (r Range) or(d Range) Range {
	if r == (Range{}) {
		return d
	}
	return r
}

// Options are the options of New.
type Options struct {
	// Seed decides everything that is left to chance.
	Seed uint64
	// Faults is what the adversary does; zero is none.
	Faults Faults
	// Patience is for Wait and Drive only: how long they sleep, in real time,
	// before they move virtual time on to a time-out, when nothing else is left to
	// happen and another goroutine might yet do something. 0 means not at all.
	Patience time.Duration
	// Clock makes virtual time that of this clock, which says how long ago the
	// simulation began: an event takes effect when the clock has reached its time,
	// Drive executes it (somebody must call Drive), and Wait only sleeps. The clock
	// is read under the fabric's lock, so it must not call the fabric, and package
	// time must run at its pace. It may not be had with Patience. nil means that
	// virtual time jumps from event to event.
	Clock func() time.Duration
	// TraceLength is how many of the last events Trace keeps; 0 means none. Hash
	// covers all events in any case.
	TraceLength int
	// MaxInFlight bounds the requests of all queue pairs that are outstanding, or
	// may still take effect late; Post refuses more with ErrQueueFull. 0 means
	// 1<<20.
	MaxInFlight int
}

// maxFlight is the default of Options.MaxInFlight.
const maxFlight = 1 << 20

// Faults is what the adversary does. The numbers without a unit are
// probabilities from 0 to 1, per request if not said otherwise. The zero value
// has no fault and no chance in it. Package comment: what each one exploits.
type Faults struct {
	// Delay is the way of a request to the peer and ReplyDelay the way back; zero
	// means a microsecond. Delay alone does not change the order of one queue pair.
	Delay, ReplyDelay Range
	// Reorder is the chance that a READ, CAS or FAA is held back, so that requests
	// posted later overtake it, by HoldBack; zero HoldBack means up to 20 us.
	Reorder  float64
	HoldBack Range
	// Tear is the chance that a READ or WRITE moves in 2 to
	// 8 parts, in any order, with PartGap between two; zero PartGap means up to 5 us.
	Tear    float64
	PartGap Range
	// EarlyAck is the chance that a WRITE completes before its bytes are in place,
	// which they then are a HoldBack later.
	EarlyAck float64
	// SplitAtomics is the chance that a CAS or FAA loads and stores at two times,
	// PartGap apart. Other atomics and READs of the word wait meanwhile, the
	// owner's CPU and WRITEs do not.
	SplitAtomics float64
	// LoseRequest and LoseReply are the chances that the request does not get
	// through, or is executed and its reply does not. The requester sees
	// StatusUnreachable after Timeout.
	LoseRequest, LoseReply float64
	// Late is the chance that a request still takes effect after its requester has
	// given it up (or died), LateDelay after that; zero LateDelay means up to 1 ms.
	Late      float64
	LateDelay Range
	// RemoteOperation and Fatal are the chances that a request ends as
	// StatusRemoteOperation or StatusFatal, with none, half or all of its effect.
	RemoteOperation, Fatal float64
	// FailConnect is the chance that a Connect fails, with or without the peer's
	// end being connected; per call.
	FailConnect float64
	// FailRevoke is the chance that a Revoke fails, with or without effect; per call.
	FailRevoke float64
	// TimeoutStretch makes time-outs up to 1+TimeoutStretch times as long; 0 to 10.
	TimeoutStretch float64
}

// validate returns all that is wrong with the faults.
func (o *Faults) validate() error {
	var all []error
	for _, p := range []struct {
		name  string
		value float64
		most  float64
	}{
		{"Reorder", o.Reorder, 1}, {"Tear", o.Tear, 1}, {"EarlyAck", o.EarlyAck, 1}, {"SplitAtomics", o.SplitAtomics, 1},
		{"LoseRequest", o.LoseRequest, 1}, {"LoseReply", o.LoseReply, 1}, {"Late", o.Late, 1},
		{"RemoteOperation", o.RemoteOperation, 1}, {"Fatal", o.Fatal, 1},
		{"FailConnect", o.FailConnect, 1}, {"FailRevoke", o.FailRevoke, 1}, {"TimeoutStretch", o.TimeoutStretch, 10},
	} {
		if !(p.value >= 0 && p.value <= p.most) {
			all = append(all, fmt.Errorf("%s is %v, want 0 to %v", p.name, p.value, p.most))
		}
	}
	for _, r := range []struct {
		name  string
		value Range
	}{{"Delay", o.Delay}, {"ReplyDelay", o.ReplyDelay}, {"HoldBack", o.HoldBack}, {"PartGap", o.PartGap}, {"LateDelay", o.LateDelay}} {
		if r.value.Min < 0 || r.value.Max < r.value.Min || r.value.Max > maxDelay {
			all = append(all, fmt.Errorf("%s is %v, want 0 <= Min <= Max <= %v", r.name, r.value, maxDelay))
		}
	}
	return errors.Join(all...)
}

// maxDelay bounds every delay, so that sums of them do not overflow.
const maxDelay = time.Hour

func (o *Faults) ensureDefaults() {
	micro := Range{time.Microsecond, time.Microsecond}
	o.Delay, o.ReplyDelay = o.Delay.or(micro), o.ReplyDelay.or(micro)
	o.HoldBack = o.HoldBack.or(Range{0, 20 * time.Microsecond})
	o.PartGap = o.PartGap.or(Range{0, 5 * time.Microsecond})
	o.LateDelay = o.LateDelay.or(Range{0, time.Millisecond})
}

// validate returns all that is wrong with the options.
func (o *Options) validate() error {
	err := o.Faults.validate()
	if o.Patience < 0 || o.TraceLength < 0 || o.MaxInFlight < 0 {
		err = errors.Join(err, fmt.Errorf("patience is %v, TraceLength %d, MaxInFlight %d: none may be negative", o.Patience, o.TraceLength, o.MaxInFlight))
	}
	if o.Clock != nil && o.Patience != 0 {
		err = errors.Join(err, fmt.Errorf("patience is %v, want 0 beside a Clock: time-outs come when the clock says so", o.Patience))
	}
	return err
}

// Swarm draws faults for a seed: each kind is there in about half of the seeds,
// with a rate of its own, so that rare combinations are met too.
func Swarm(seed uint64) Faults {
	var d dice
	d.seed(seed)
	rate := func(most float64) float64 {
		if d.below(streamSwarm, 2) == 0 {
			return 0
		}
		return most * float64(1+d.below(streamSwarm, 16)) / 16
	}
	span := func(most time.Duration) Range {
		a, b := time.Duration(d.below(streamSwarm, uint64(most))), time.Duration(d.below(streamSwarm, uint64(most)))
		return Range{min(a, b) + 1, max(a, b) + 1}
	}
	return Faults{
		Delay: span(20 * time.Microsecond), ReplyDelay: span(20 * time.Microsecond),
		Reorder: rate(1), HoldBack: span(100 * time.Microsecond),
		Tear: rate(1), PartGap: span(20 * time.Microsecond),
		EarlyAck: rate(0.5), SplitAtomics: rate(0.5),
		LoseRequest: rate(0.03), LoseReply: rate(0.03),
		Late: rate(1), LateDelay: span(5 * time.Millisecond),
		RemoteOperation: rate(0.02), Fatal: rate(0.02),
		FailConnect: rate(0.1), FailRevoke: rate(0.1),
		TimeoutStretch: rate(3),
	}
}
