package sim_test

import (
	"slices"

	"github.com/tenure-faas/tenure/rdma"
)

// words are the words of a stream at its receiver.
func (s *stream) words() []uint64 {
	all := make([]uint64, 0, stride/8)
	for at := 0; at < stride; at += 8 {
		all = append(all, s.to.memory.Load(s.offset+at))
	}
	return all
}

// number is the number that is spread over a word.
func (w *world) number(word uint64) uint64 {
	if word%spread != 0 || word/spread > most {
		w.fatalf("the word %#x is torn", word)
	}
	return word / spread
}

// torn gives the least and the greatest number in a word that a WRITE may have
// left half done, or a READ half seen.
func torn(word uint64) (least, greatest uint64) {
	least = most
	for range 8 {
		least, greatest = min(least, word&0xff), max(greatest, word&0xff)
		word >>= 8
	}
	return least, greatest
}

// look checks what the memory of the living says at this moment.
func (w *world) look() {
	for _, s := range w.streams {
		if s.to.dead {
			continue
		}
		now := s.words()
		aLeast, a := torn(now[wordA/8])
		bLeast, b := torn(now[wordB/8])
		_, bell := torn(now[wordBell/8])
		count := w.number(now[wordCount/8])
		if aLeast < b || a > bLeast+1 || a > s.written {
			w.fatalf("stream %d of %s: A is %d to %d and B is %d to %d, %d were written: a WRITE overtook another", s.qp.Number(), s.from.name, aLeast, a, bLeast, b, s.written)
		}
		if bell > s.rung || count > s.counted {
			w.fatalf("stream %d of %s: %d doorbells and %d counts were posted, the words say %d and %d", s.qp.Number(), s.from.name, s.rung, s.counted, bell, count)
		}
		for i, v := range now[:len(s.last)] {
			for shift := 0; shift < 64; shift += 8 {
				if v>>shift&0xff < s.last[i]>>shift&0xff {
					w.fatalf("stream %d of %s: a byte of word %d went down, from %#x to %#x", s.qp.Number(), s.from.name, i, s.last[i], v)
				}
			}
			s.last[i] = v
		}
		if s.frozen != nil && !slices.Equal(now, s.frozen) {
			w.fatalf("stream %d of %s: the words were %v when it was revoked and are %v", s.qp.Number(), s.from.name, s.frozen, now)
		}
	}
	for _, m := range w.members {
		if tail := m.memory.Load(memorySize - guard); tail != 0 {
			w.fatalf("%s: a request out of bounds has written %#x", m.name, tail)
		}
	}
}

// poll takes all completions and checks each.
func (w *world) poll() {
	var batch [8]rdma.Completion
	for _, s := range w.streams {
		s.unpolled = 0
	}
	for _, m := range w.members {
		for n := m.cq.Poll(batch[:]); n > 0; n = m.cq.Poll(batch[:]) {
			for _, c := range batch[:n] {
				s := m.by[c.QP]
				switch {
				case s == nil:
					w.fatalf("%s: %+v is of no queue pair", m.name, c)
				case c.Op == rdma.OpReceive:
					w.doorbell(w.other(s), &c)
				default:
					w.completion(s, &c)
				}
			}
		}
	}
}

// doorbell is one that s has sent.
func (w *world) doorbell(s *stream, c *rdma.Completion) {
	s.heard++
	if uint64(c.Imm) != s.heard || c.Length != 8 || c.Status != rdma.StatusOK {
		w.fatalf("stream %d of %s: doorbell %d is %+v", s.qp.Number(), s.from.name, s.heard, *c)
	}
	if s.unpolled++; s.unpolled > receiveDepth {
		w.fatalf("stream %d of %s: more than %d doorbells were unpolled", s.qp.Number(), s.from.name, receiveDepth)
	}
	if data, _ := torn(s.to.memory.Load(s.offset + wordBell)); !s.to.dead && data < s.heard {
		w.fatalf("stream %d of %s: doorbell %d came, its data is %d", s.qp.Number(), s.from.name, s.heard, data)
	}
}

// completion is the end of a request of s.
func (w *world) completion(s *stream, c *rdma.Completion) {
	if c.ID >= uint64(len(s.log)) {
		w.fatalf("stream %d of %s: completion of request %d, %d were posted", s.qp.Number(), s.from.name, c.ID, len(s.log))
	}
	for _, p := range s.log[c.ID+1:] {
		if p.completed {
			w.fatalf("stream %d of %s: request %d completed after a later one", s.qp.Number(), s.from.name, c.ID)
		}
	}
	p := s.log[c.ID]
	switch {
	case p.completed:
		w.fatalf("stream %d of %s: request %d completed twice", s.qp.Number(), s.from.name, c.ID)
	case c.Op != p.w.Op:
		w.fatalf("stream %d of %s: request %d is a %v, its completion a %v", s.qp.Number(), s.from.name, c.ID, p.w.Op, c.Op)
	case s.broken && c.Status != rdma.StatusFlushed:
		w.fatalf("stream %d of %s: request %d ends as %v after the queue pair broke", s.qp.Number(), s.from.name, c.ID, c.Status)
	case c.Status == rdma.StatusOK && p.w.Flags&rdma.Signaled == 0:
		w.fatalf("stream %d of %s: request %d is not signaled and was done", s.qp.Number(), s.from.name, c.ID)
	case c.Status != rdma.StatusOK && w.calm:
		w.fatalf("stream %d of %s: request %d ends as %v in a calm world", s.qp.Number(), s.from.name, c.ID, c.Status)
	case c.Status == rdma.StatusOK && p.bad:
		w.fatalf("stream %d of %s: request %d is out of bounds and was done", s.qp.Number(), s.from.name, c.ID)
	}
	p.completed, p.status, p.found = true, c.Status, s.from.staging.Load(p.place)
	s.broken = s.broken || c.Status != rdma.StatusOK
	if p.place > 0 {
		s.from.staging.Store(p.place, poison)
	}
	if c.Status == rdma.StatusOK && p.w.Op == rdma.OpRead {
		least, greatest := torn(p.found)
		if least < p.least || greatest > s.written || p.exact && greatest > p.least {
			w.fatalf("stream %d of %s: READ %d found %#x, want %d (exactly: %v) to %d", s.qp.Number(), s.from.name, c.ID, p.found, p.least, p.exact, s.written)
		}
	}
}

// end checks what must hold when nothing is left to happen.
func (w *world) end() {
	for _, s := range w.streams {
		w.endOfStream(s)
	}
	for _, m := range w.members {
		if !m.dead {
			w.endOfSwaps(m)
		}
	}
}

// endOfStream checks that every request came to exactly one end.
func (w *world) endOfStream(s *stream) {
	if s.from.dead {
		return
	}
	var written, counted, unknown uint64
	failed := false
	for i, p := range s.log {
		failed = failed || p.completed && p.status != rdma.StatusOK
		if (failed || p.w.Flags&rdma.Signaled != 0) != p.completed {
			w.fatalf("stream %d of %s: request %d (%v, flags %d) has completed: %v, an earlier one failed: %v", s.qp.Number(), s.from.name, i, p.w.Op, p.w.Flags, p.completed, failed)
		}
		if local := s.from.staging.Load(p.place); p.completed && p.place > 0 && local != poison && s.from.placed < (memorySize-ownPlaces)/stagingSize {
			w.fatalf("stream %d of %s: the local memory of request %d was changed to %#x after its completion", s.qp.Number(), s.from.name, i, local)
		}
		done := !failed
		switch {
		case p.w.Op == rdma.OpWrite && done:
			written = max(written, p.value)
		case p.w.Op == rdma.OpFAA && done:
			counted++
		case p.w.Op == rdma.OpFAA && p.status.Outcome() == rdma.Unknown:
			unknown++
		}
	}
	if s.to.dead {
		return
	}
	now := s.words()
	a, _ := torn(now[wordA/8])
	b, _ := torn(now[wordB/8])
	if a < written || b+1 < written {
		w.fatalf("stream %d of %s: %d WRITEs are done, the words are %d and %d", s.qp.Number(), s.from.name, written, a, b)
	}
	if c := now[wordCount/8] / spread; c < counted || c > counted+unknown {
		w.fatalf("stream %d of %s: %d FAAs are done and %d unknown, the word says %d", s.qp.Number(), s.from.name, counted, unknown, c)
	}
	if s.heard > s.rung {
		w.fatalf("stream %d of %s: %d doorbells came of %d", s.qp.Number(), s.from.name, s.heard, s.rung)
	}
}

// endOfSwaps checks that the CASes of a word form one chain: every swap value is
// used once, so the word's last value names all that have taken effect.
func (w *world) endOfSwaps(m *member) {
	by := map[uint64]*posted{}
	for _, p := range m.swaps {
		by[p.w.Swap] = p
	}
	chain := map[uint64]bool{0: true}
	for v := m.memory.Load(sharedCAS); v != 0; v = by[v].w.CompareAdd {
		if by[v] == nil || chain[v] {
			w.fatalf("%s: the chain of swaps comes to %d, which nobody may have stored", m.name, v)
		}
		if by[v].status.Outcome() == rdma.NotDone {
			w.fatalf("%s: the swap to %d is not done, and took effect", m.name, v)
		}
		chain[v] = true
	}
	for _, s := range w.streams {
		if s.to != m || s.from.dead {
			continue
		}
		for _, p := range s.log {
			if p.w.Op != rdma.OpCAS || !p.completed || p.status != rdma.StatusOK {
				continue
			}
			if !chain[p.found] || chain[p.w.Swap] != (p.found == p.w.CompareAdd) {
				w.fatalf("%s: the swap from %d to %d found %d; in the chain: %v and %v", m.name, p.w.CompareAdd, p.w.Swap, p.found, chain[p.found], chain[p.w.Swap])
			}
		}
	}
}
