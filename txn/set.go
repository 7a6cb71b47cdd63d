package txn

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/tenure-faas/tenure/base"
)

// Effect is what a transaction will do to a key when it commits.
type Effect uint8

// The effects.
const (
	// None: the key is only locked or read.
	None Effect = iota
	// Put replaces the value.
	Put
	// Delete removes it.
	Delete
	// Increment adds Access.Delta to a decimal number.
	Increment
)

// Access is one key in a transaction's set: the lock on it, the steps that
// used it and the buffered effect.
type Access struct {
	Lock
	// Readers, Writers and Adders have a bit for each step that read, wrote or
	// added to the key. Step numbers are below 64.
	Readers, Writers, Adders uint64
	// Effect is what commit does; Value belongs to Put, Delta to Increment.
	Effect Effect
	Value  []byte
	Delta  int64
	// Loaded says that Note was called when Entry had its value.
	Loaded bool
	// value, present and version are what Entry had then. Entry itself may be
	// forgotten under a reader's lock, when a shared copy of its slot is lost or its
	// lease comes.
	value   []byte
	present bool
	version base.Version
}

// Note takes over the value of the entry, which is loaded. Called under the
// shard's latch, once the lock is held; again after the lock was strengthened.
func (a *Access) Note() {
	a.Loaded, a.value, a.present, a.version = true, a.Entry.Value, a.Entry.Present, a.Entry.Version
}

// Noted returns whether the key had a value when it was noted, and its version.
func (a *Access) Noted() (present bool, version base.Version) { return a.present, a.version }

// Use is what a step does to a key, for the order between parallel steps.
type Use uint8

// The uses. Two uses conflict unless both read or both add.
const (
	// Read needs the value.
	Read Use = iota
	// Write replaces or removes it.
	Write
	// AddTo adds without reading.
	AddTo
)

// Mode returns the lock that the use needs.
func (u Use) Mode() Mode {
	switch u {
	case Read:
		return Shared
	case AddTo:
		return Additive
	default:
		return Exclusive
	}
}

// Mark records that step uses the key, and returns the steps not in ordered
// whose use of the key conflicts: they ran, or may run, in parallel with step,
// and must be put in an order. ordered has the bits of the steps that are
// ordered before step.
func (a *Access) Mark(step int, use Use, ordered uint64) (conflicting uint64) {
	bit := uint64(1) << step
	switch use {
	case Read:
		conflicting = a.Writers | a.Adders
		a.Readers |= bit
	case AddTo:
		conflicting = a.Readers | a.Writers
		a.Adders |= bit
	default:
		conflicting = a.Readers | a.Writers | a.Adders
		a.Writers |= bit
	}
	return conflicting &^ (ordered | bit)
}

// Current returns the value the transaction sees: its own effect over the value
// that was noted. An Increment must have been resolved before (see Resolve).
func (a *Access) Current() (value []byte, present bool) {
	switch a.Effect {
	case Put:
		return a.Value, true
	case Delete:
		return nil, false
	default:
		return a.value, a.present
	}
}

// Resolve returns the value after the effect, given the entry's newest value.
// The error of an Increment is NotANumber or Overflow.
func (a *Access) Resolve() (value []byte, present bool, err error) {
	if a.Effect != Increment {
		value, present = a.Current()
		return value, present, nil
	}
	sum, err := AddDecimal(a.Entry.Value, a.Entry.Present, a.Delta)
	if err != nil {
		return nil, false, err
	}
	return strconv.AppendInt(make([]byte, 0, 20), sum, 10), true, nil
}

// AddDecimal adds delta to a value that must be a decimal int64; an absent
// value counts as 0.
func AddDecimal(value []byte, present bool, delta int64) (int64, error) {
	var n int64
	if present {
		var err error
		if n, err = strconv.ParseInt(string(value), 10, 64); err != nil {
			return 0, errNotANumber
		}
	}
	return AddDelta(n, delta)
}

// AddDelta adds two int64 and refuses to overflow.
func AddDelta(n, delta int64) (int64, error) {
	sum := n + delta
	if (sum > n) != (delta > 0) && delta != 0 {
		return 0, errOverflow
	}
	return sum, nil
}

var (
	errNotANumber = base.Errorf(base.FunctionError, "add needs a value that is a decimal int64, and the stored value is not")
	errOverflow   = base.Errorf(base.FunctionError, "add overflows int64")
)

// Set is the read and write set of one attempt. The zero value is empty and
// ready; Reset makes it so again and keeps the memory. It is guarded by the
// attempt's owner.
type Set struct {
	// Accesses are the keys in order of first use.
	Accesses []*Access
	// Passes are the gates passed or queued at.
	Passes []*Pass

	index       map[base.Key]*Access // from indexFrom keys on
	top         *Access              // the greatest key of all
	spare       []*Access
	sparePasses []*Pass
}

const (
	// indexFrom is the number of keys up to which a search beats a map.
	indexFrom = 16
	// spareMost bounds the memory that an empty set keeps for its next use.
	spareMost = 128
)

// Find returns the access of a key, or nil.
func (s *Set) Find(k base.Key) *Access {
	if s.index != nil && len(s.Accesses) > indexFrom {
		return s.index[k]
	}
	for _, a := range s.Accesses {
		if a.Key == k {
			return a
		}
	}
	return nil
}

// InOrder reports whether k comes after everything in the set, so that waiting
// for it keeps the global order.
func (s *Set) InOrder(k base.Key) bool { return s.inOrder(k, k.Slot()) }

func (s *Set) inOrder(k base.Key, slot base.Slot) bool {
	if s.top == nil || s.top.Slot != slot {
		return s.top == nil || s.top.Slot < slot
	}
	return s.top.Key.Compare(k) < 0
}

// Insert adds a key that is not in the set, with its slot and mode set and no
// lock yet.
func (s *Set) Insert(k base.Key, mode Mode) *Access {
	var a *Access
	if n := len(s.spare); n > 0 {
		a, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		a = &Access{Lock: Lock{Wake: make(chan struct{}, 1)}}
	}
	a.Key, a.Slot, a.Mode = k, k.Slot(), mode
	if s.inOrder(k, a.Slot) {
		s.top = a
	}
	s.Accesses = append(s.Accesses, a)
	switch {
	case len(s.Accesses) == indexFrom+1:
		if s.index == nil {
			s.index = make(map[base.Key]*Access, 4*indexFrom)
		}
		for _, b := range s.Accesses {
			s.index[b.Key] = b
		}
	case len(s.Accesses) > indexFrom:
		s.index[k] = a
	}
	return a
}

// Remove takes back the access inserted last, whose lock was not granted.
func (s *Set) Remove(a *Access) {
	n := len(s.Accesses)
	if n == 0 || s.Accesses[n-1] != a {
		panic("txn: only the last access can be removed")
	}
	delete(s.index, a.Key)
	s.Accesses = s.Accesses[:n-1]
	if s.top == a {
		s.top = nil
		for _, b := range s.Accesses {
			if s.InOrder(b.Key) {
				s.top = b
			}
		}
	}
	s.recycle(a)
}

// Pass returns the pass of a table, or nil.
func (s *Set) Pass(table string) *Pass {
	for _, p := range s.Passes {
		if p.Table == table {
			return p
		}
	}
	return nil
}

// InsertPass adds an empty pass for a table that has none.
func (s *Set) InsertPass(table string) *Pass {
	var p *Pass
	if n := len(s.sparePasses); n > 0 {
		p, s.sparePasses = s.sparePasses[n-1], s.sparePasses[:n-1]
	} else {
		p = &Pass{Wake: make(chan struct{}, 1)}
	}
	p.Table = table
	s.Passes = append(s.Passes, p)
	return p
}

// RemovePass takes back the pass inserted last, which was not let in.
func (s *Set) RemovePass(p *Pass) {
	n := len(s.Passes)
	if n == 0 || s.Passes[n-1] != p {
		panic("txn: only the last pass can be removed")
	}
	s.Passes = s.Passes[:n-1]
	s.recyclePass(p)
}

// Reset empties the set. All locks and passes must have been given back.
func (s *Set) Reset() {
	for _, a := range s.Accesses {
		s.recycle(a)
	}
	for _, p := range s.Passes {
		s.recyclePass(p)
	}
	s.Accesses, s.Passes, s.top = s.Accesses[:0], s.Passes[:0], nil
	if s.index != nil {
		clear(s.index)
	}
}

func (s *Set) recycle(a *Access) {
	if len(s.spare) < spareMost {
		*a = Access{Lock: Lock{Wake: a.Wake}}
		s.spare = append(s.spare, a)
	}
}

func (s *Set) recyclePass(p *Pass) {
	if len(s.sparePasses) < spareMost {
		*p = Pass{Wake: p.Wake, Scans: p.Scans[:0], Writes: p.Writes[:0]}
		s.sparePasses = append(s.sparePasses, p)
	}
}

// Need is a lock that an attempt takes before it starts.
type Need struct {
	Key  base.Key
	Slot base.Slot // of Key
	Mode Mode
}

// compare orders needs as the keys are ordered.
func (n Need) compare(o Need) int {
	if n.Slot != o.Slot {
		return cmp.Compare(n.Slot, o.Slot)
	}
	return n.Key.Compare(o.Key)
}

// Range is a prefix of a table's keys.
type Range struct{ Table, Prefix string }

// Footprint is what an attempt takes in order before any function runs: the
// declared keys, and all that earlier attempts of the transaction touched.
type Footprint struct {
	// Needs are the keys; after Sort in lock order, each once.
	Needs []Need
	// Scans are the ranges that earlier attempts scanned.
	Scans []Range
}

// Want adds a key.
func (f *Footprint) Want(k base.Key, m Mode) { f.Needs = append(f.Needs, Need{k, k.Slot(), m}) }

// WantScan adds a range.
func (f *Footprint) WantScan(r Range) {
	if !slices.Contains(f.Scans, r) {
		f.Scans = append(f.Scans, r)
	}
}

// Learn adds everything that an attempt touched, in the modes it held or
// asked for.
func (f *Footprint) Learn(s *Set) {
	for _, a := range s.Accesses {
		f.Want(a.Key, a.Mode)
	}
	for _, p := range s.Passes {
		for _, prefix := range p.Scans {
			f.WantScan(Range{p.Table, prefix})
		}
	}
}

// Sort puts the needs into lock order and joins those of one key.
func (f *Footprint) Sort() {
	if len(f.Needs) > 1 {
		slices.SortFunc(f.Needs, Need.compare)
	}
	kept := f.Needs[:0]
	for _, n := range f.Needs {
		if last := len(kept) - 1; last >= 0 && kept[last].Key == n.Key {
			kept[last].Mode = kept[last].Mode.Join(n.Mode)
			continue
		}
		kept = append(kept, n)
	}
	f.Needs = kept
}

// Gates fills the set with one pass for each table that the footprint writes
// to or scans, in table order; none of them is entered yet.
func (f *Footprint) Gates(s *Set) {
	for _, n := range f.Needs {
		if n.Mode != Shared {
			p := s.passFor(n.Key.Table)
			p.Writes = append(p.Writes, n.Key.Key)
		}
	}
	for _, r := range f.Scans {
		p := s.passFor(r.Table)
		p.Scans = append(p.Scans, r.Prefix)
	}
	if len(s.Passes) > 1 {
		slices.SortFunc(s.Passes, func(a, b *Pass) int { return strings.Compare(a.Table, b.Table) })
	}
}

func (s *Set) passFor(table string) *Pass {
	if p := s.Pass(table); p != nil {
		return p
	}
	return s.InsertPass(table)
}

// Reset empties the footprint and keeps the memory.
func (f *Footprint) Reset() { f.Needs, f.Scans = f.Needs[:0], f.Scans[:0] }
