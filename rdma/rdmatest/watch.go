package rdmatest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// doWords returns words of a region.
type doWords struct{ Region, Offset, Count int }

// words are a result of doWords.
type words struct{ Words []uint64 }

func (o doWords) run(a *agent) (any, error) {
	b := bytes.Clone(a.region(o.Region).Bytes()[o.Offset:][:8*o.Count])
	w := words{make([]uint64, o.Count)}
	for i := range w.Words {
		w.Words[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return w, nil
}

// doCount stores the words First, First+Step, First+2*Step ... in all of a
// region.
type doCount struct {
	Region      int
	First, Step uint64
}

func (o doCount) run(a *agent) (any, error) {
	r := a.region(o.Region)
	for at := 0; at+8 <= len(r.Bytes()); at += 8 {
		r.Store(at, o.First+uint64(at/8)*o.Step)
	}
	return nil, nil
}

// doReach waits until a word is at least Value. The answer is the word; it is
// less if the bound has passed.
type doReach struct {
	Region, Offset int
	Value          uint64
	Bound          time.Duration
}

func (o doReach) run(a *agent) (any, error) {
	r := a.region(o.Region)
	for start := time.Now(); ; runtime.Gosched() {
		if v := r.Load(o.Offset); v >= o.Value || time.Since(start) > o.Bound {
			return v, nil
		}
	}
}

// doStamp fills the slots of Size bytes of a region: slot i with bytes i+1.
type doStamp struct{ Region, Size int }

func (o doStamp) run(a *agent) (any, error) {
	b := a.region(o.Region).Bytes()
	for i := range b {
		b[i] = byte(i/o.Size + 1)
	}
	return nil, nil
}

// doCloseInside looks at a region that WRITEs with the stamps 1, 2 ... Last fill,
// one after the other, and closes it when it sees a part of one, or all of the
// last, or the bound has passed. The answer is the largest stamp that it has seen:
// that WRITE had begun.
type doCloseInside struct {
	Region, Last int
	Bound        time.Duration
}

func (o doCloseInside) run(a *agent) (any, error) {
	r := a.region(o.Region)
	end := len(r.Bytes())&^7 - 8
	for start := time.Now(); ; runtime.Gosched() {
		// Any byte of a word will do: words may be torn, bytes are not.
		first, last := r.Load(0)&0xff, r.Load(end)&0xff
		if first != last || last == uint64(o.Last) || time.Since(start) > o.Bound {
			return max(first, last), r.Close()
		}
	}
}

// doObserve looks at what says how many slots are filled, until all Slots are.
// At every step, what it says must be there: slot i has the pattern of sourceSeed
// from i*Size on. The answer says what is wrong, or "".
type doObserve struct {
	// Flags at Offset is a word that counts the slots, or, with Marks, one byte for
	// each slot, which becomes 1: the only thing that a WRITE cannot tear. The slots
	// are in Region from 0 on. Ready is a word of Flags that becomes 1 when the node
	// has begun to look.
	Flags, Offset, Ready int
	Marks                bool
	Region               int
	Slots, Size          int
	Bound                time.Duration
}

func (o doObserve) run(a *agent) (any, error) {
	flags, slots := a.region(o.Flags), a.region(o.Region).Bytes()
	want, got := make([]byte, o.Size), make([]byte, o.Size)
	check := func(slot int) string {
		copy(got, slots[slot*o.Size:])
		if paint(want, sourceSeed, slot*o.Size); bytes.Equal(got, want) {
			return ""
		}
		return fmt.Sprintf("slot %d is said to be filled and is not: %x, want %x", slot, got, want)
	}
	seen := 0
	flags.Store(o.Ready, 1)
	for start := time.Now(); seen < o.Slots; runtime.Gosched() {
		filled := o.filled(flags, seen)
		if filled > o.Slots || filled < seen {
			return fmt.Sprintf("the count went from %d to %d of %d", seen, filled, o.Slots), nil
		}
		// The last one first: it is the one that may be late.
		for slot := filled - 1; slot >= seen; slot-- {
			if wrong := check(slot); wrong != "" {
				return wrong, nil
			}
		}
		if seen = filled; time.Since(start) > o.Bound {
			return fmt.Sprintf("after %v, %d of %d slots are filled", o.Bound, seen, o.Slots), nil
		}
	}
	return "", nil
}

// filled returns how many slots are said to be filled, of which seen are known.
func (o doObserve) filled(flags rdma.Region, seen int) int {
	if !o.Marks {
		return int(min(flags.Load(o.Offset), 1<<30))
	}
	var marks [8]byte
	for ; seen < o.Slots; seen++ {
		at := o.Offset + seen
		binary.NativeEndian.PutUint64(marks[:], flags.Load(at&^7))
		if marks[at%8] != 1 {
			break
		}
	}
	return seen
}

// doRings waits for doorbells, the first with Imm 0 and each one more than the
// one before. When it rings, slot Imm must be filled. The answer says what is
// wrong, or "".
type doRings struct {
	Queue       int
	Region      int
	Slots, Size int
	Bound       time.Duration
}

func (o doRings) run(a *agent) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Bound)
	defer cancel()
	q, slots := a.queue(o.Queue), a.region(o.Region).Bytes()
	want, got := make([]byte, o.Size), make([]byte, o.Size)
	polled := make([]rdma.Completion, 16)
	for seen := 0; seen < o.Slots; {
		n, err := q.Wait(ctx, polled)
		if err != nil {
			return fmt.Sprintf("%d of %d doorbells came, then Wait ended with: %v", seen, o.Slots, err), nil
		}
		for _, c := range polled[:n] {
			if c.Op != rdma.OpReceive || c.Imm != uint32(seen) {
				return fmt.Sprintf("%+v is not doorbell %d", c, seen), nil
			}
			copy(got, slots[seen*o.Size:])
			if paint(want, sourceSeed, seen*o.Size); !bytes.Equal(got, want) {
				return fmt.Sprintf("doorbell %d came, its data is not there: %x, want %x", seen, got, want), nil
			}
			seen++
		}
	}
	return "", nil
}

// halves says whether both halves of a word are equal.
func halves(w uint64) bool { return w>>32 == w&(1<<32-1) }

// doWatchHalves loads a word with the processor until it is Until. The word at
// Ready becomes 1 when it has begun. The answer is the first word whose halves
// differ, or "".
type doWatchHalves struct {
	Region, Offset, Ready int
	Until                 uint64
	Bound                 time.Duration
}

func (o doWatchHalves) run(a *agent) (any, error) {
	r := a.region(o.Region)
	r.Store(o.Ready, 1)
	for start := time.Now(); ; runtime.Gosched() {
		w := r.Load(o.Offset)
		switch {
		case !halves(w):
			return fmt.Sprintf("loaded the word %#x", w), nil
		case w == o.Until:
			return "", nil
		case time.Since(start) > o.Bound:
			return fmt.Sprintf("after %v the word is %#x, want %#x", o.Bound, w, o.Until), nil
		}
	}
}

// doReadHalves is doWatchHalves with a READ, one after the other.
type doReadHalves struct {
	Pair, Queue int
	Request     rdma.WorkRequest
	// Region and Offset are the request's local memory; Ready is another word.
	Region, Offset, Ready int
	Until                 uint64
	Bound                 time.Duration
}

func (o doReadHalves) run(a *agent) (any, error) {
	r := a.region(o.Region)
	for start := time.Now(); ; {
		if err := once(a, o.Pair, o.Queue, o.Request, o.Bound); err != nil {
			return nil, err
		}
		r.Store(o.Ready, 1)
		w := r.Load(o.Offset)
		switch {
		case !halves(w):
			return fmt.Sprintf("read the word %#x", w), nil
		case w == o.Until:
			return "", nil
		case time.Since(start) > o.Bound:
			return fmt.Sprintf("after %v the word is %#x, want %#x", o.Bound, w, o.Until), nil
		}
	}
}

// once posts a signaled request and waits for its completion, which must be the
// only one in the queue and good.
func once(a *agent, pair, queue int, r rdma.WorkRequest, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	if _, err := a.pair(pair).Post([]rdma.WorkRequest{r}); err != nil {
		return err
	}
	polled := make([]rdma.Completion, 2)
	n, err := a.queue(queue).Wait(ctx, polled)
	switch {
	case err != nil:
		return err
	case n != 1 || polled[0].ID != r.ID || polled[0].Op != r.Op:
		return fmt.Errorf("completions %+v, want one of request %d", polled[:n], r.ID)
	}
	return polled[0].Err()
}

// doIncrement adds one to a word Times times, by CAS alone. The answer is the
// number of attempts.
type doIncrement struct {
	Pair, Queue int
	// Request is a CAS of the word; Region and Offset are its local memory.
	Request        rdma.WorkRequest
	Region, Offset int
	Times          int
	Bound          time.Duration
}

func (o doIncrement) run(a *agent) (any, error) {
	r := a.region(o.Region)
	guess, attempts := uint64(0), uint64(0)
	start := time.Now()
	for done := 0; done < o.Times; attempts++ {
		if time.Since(start) > o.Bound {
			return nil, fmt.Errorf("after %v, %d attempts made %d of %d increments", o.Bound, attempts, done, o.Times)
		}
		o.Request.ID, o.Request.CompareAdd, o.Request.Swap = attempts, guess, guess+1
		if err := once(a, o.Pair, o.Queue, o.Request, o.Bound); err != nil {
			return nil, err
		}
		found := r.Load(o.Offset)
		if found == guess {
			done++
			found++
		}
		guess = found
	}
	return attempts, nil
}

// doVolley sends doorbells to and fro with a peer that does the same: each is
// sent when the one before has come.
type doVolley struct {
	Pair, Send, Receive int // queue pair, completion queues
	First               bool
	Rounds              int
	Bound               time.Duration
}

func (o doVolley) run(a *agent) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Bound)
	defer cancel()
	pair, send, receive := a.pair(o.Pair), a.queue(o.Send), a.queue(o.Receive)
	rung, sent := 0, 0
	polled := make([]rdma.Completion, 4)
	await := func(q rdma.CompletionQueue, count *int, least int) error {
		for *count < least {
			n, err := q.Wait(ctx, polled)
			if err != nil {
				return fmt.Errorf("%d doorbells came and %d were sent, of %d: %w", rung, sent, o.Rounds, err)
			}
			for _, c := range polled[:n] {
				if err := c.Err(); err != nil {
					return err
				}
				if c.Op == rdma.OpReceive {
					rung++
				} else {
					sent++
				}
			}
		}
		return nil
	}
	for r := range o.Rounds {
		if !o.First {
			if err := await(receive, &rung, r+1); err != nil {
				return nil, err
			}
		}
		if _, err := pair.Post([]rdma.WorkRequest{rdma.WriteImm(uint64(r+1), rdma.Local{}, rdma.RemoteRegion{}, 0, uint32(r))}); err != nil {
			return nil, err
		}
		if o.First {
			if err := await(receive, &rung, r+1); err != nil {
				return nil, err
			}
		}
		// Doorbells of the peer say nothing about the completions here.
		if err := await(send, &sent, r-16); err != nil {
			return nil, err
		}
	}
	return nil, await(send, &sent, o.Rounds)
}
