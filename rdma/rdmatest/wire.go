package rdmatest

import (
	"context"
	"encoding/gob"
	"errors"

	"github.com/tenure-faas/tenure/rdma"
)

// operation is something a node does: a plain value with exported fields, so
// that it can travel. The result is one of the types in wireTypes.
type operation interface {
	run(a *agent) (any, error)
}

// answer is how an operation ended.
type answer struct {
	Value any
	// Fault is nil if it went well.
	Fault *fault
}

// fault is an error that may have crossed from a node: its text, and which of
// the errors of the contract it wraps.
type fault struct {
	Text  string
	Kinds []int
}

// kinds are the errors that a fault is recognised as after the crossing.
func kinds() []error {
	return []error{
		rdma.ErrQueueFull, rdma.ErrBroken, rdma.ErrClosed, rdma.ErrInUse, rdma.ErrInvalid, rdma.ErrNotSupported,
		context.Canceled, context.DeadlineExceeded,
	}
}

// faultOf returns err as a fault, and nil as nil.
func faultOf(err error) *fault {
	if err == nil {
		return nil
	}
	f := &fault{Text: err.Error()}
	for i, kind := range kinds() {
		if errors.Is(err, kind) {
			f.Kinds = append(f.Kinds, i)
		}
	}
	return f
}

// err returns f as an error that is nil if f is.
func (f *fault) err() error {
	if f == nil {
		return nil
	}
	return f
}

// Error returns the text of the original.
func (f *fault) Error() string { return f.Text }

// Is says whether the original was target.
func (f *fault) Is(target error) bool {
	for _, i := range f.Kinds {
		if kinds()[i] == target {
			return true
		}
	}
	return false
}

// done is the result of operations that have none.
type done struct{}

// wireTypes makes operations and results known to gob. Both ends call it.
func wireTypes() {
	for _, v := range []any{
		answer{}, done{}, []byte(nil), uint64(0), "",
		doAll{}, answers{}, doOpen{}, opened{}, doHandles{}, handleCounts{}, doReset{}, doBreakOff{}, doFinish{}, finished{}, doDie{}, doSignal{}, doCPUTime{}, cpuTime{}, doStacks{},
		doRegister{}, registered{}, doCloseRegion{}, doFill{}, doVerify{}, doSet{}, doGet{}, doLoad{}, doStore{}, doWords{}, words{}, doCount{},
		doQueue{}, doCloseQueue{}, doWait{}, waited{}, doPoll{}, doWaitEnds{},
		doPair{}, paired{}, doAccept{}, doConnect{}, doPost{}, posted{}, doRevoke{}, doClosePair{}, doPairErr{}, state{}, doAwaitBroken{}, broke{},
		doCounters{}, counted{}, doCloseProvider{},
		doStream{}, streamed{}, doTrickle{}, trickled{}, doReach{}, doStamp{}, doCloseInside{}, doObserve{}, doRings{}, doWatchHalves{}, doReadHalves{}, doIncrement{}, doVolley{}, doHammer{},
		doQuiet{}, doCut{}, cutOff{},
	} {
		gob.Register(v)
	}
}
