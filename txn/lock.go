package txn

import (
	"fmt"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/internal/plant"
)

// Mode is the strength of a lock.
type Mode uint8

// The modes. Shared and Additive are each compatible with themselves only.
const (
	// Shared allows reading.
	Shared Mode = iota + 1
	// Additive allows adding to a number without reading it.
	Additive
	// Exclusive allows everything.
	Exclusive
)

// String returns the mode's name.
func (m Mode) String() string {
	switch m {
	case Shared:
		return "shared"
	case Additive:
		return "additive"
	case Exclusive:
		return "exclusive"
	default:
		return fmt.Sprintf("mode-%d", uint8(m))
	}
}

// Covers reports whether a holder of m may do what n allows.
func (m Mode) Covers(n Mode) bool { return m == Exclusive || m == n }

// Join returns the weakest mode that covers both; the zero Mode is neutral.
func (m Mode) Join(n Mode) Mode {
	switch {
	case m == 0 || m == n:
		return n
	case n == 0:
		return m
	default:
		return Exclusive
	}
}

// compatible reports whether two transactions may hold m and n at once.
func compatible(m, n Mode) bool { return m == n && m != Exclusive }

// Status is the answer to a request for a lock or a gate.
type Status uint8

// The answers.
const (
	// Granted: the requester has it.
	Granted Status = iota + 1
	// Queued: the requester waits; it appears in the list that a later release
	// returns, or takes its request back with Cancel.
	Queued
	// Refused: it would have to wait and was not allowed to.
	Refused
)

// Lock is one transaction's lock on one key, or its request for it. The
// transaction owns the memory and may reuse it after Release or Cancel.
type Lock struct {
	// Key and Slot name what is locked; set by the requester.
	Key  base.Key
	Slot base.Slot
	// Mode is the mode held, or asked for while queued.
	Mode Mode
	// Wake belongs to the requester: how to find the waiter of a granted lock.
	Wake chan struct{}
	// Entry is what the lock is on while it is held or queued; nil otherwise.
	Entry *Entry

	held       bool
	prev, next *Lock // neighbours among the entry's holders or waiters
}

// Held reports whether the lock is granted. Call it under the shard's latch.
func (l *Lock) Held() bool { return l.held }

// Entry is what a shard knows of one key. Its fields are guarded by the
// shard's latch; Value's bytes are never modified, only replaced.
type Entry struct {
	// Key is the entry's key.
	Key base.Key
	// Loaded says whether Value, Present and Version are the newest.
	Loaded bool
	// Present says whether the key has a value.
	Present bool
	idle    bool // in the idle list
	// Value is the newest value if Loaded and Present.
	Value []byte
	// Version counts the committed writes of the key, if Loaded.
	Version base.Version
	// Dirty is the number of the batch that wrote the value, or a later one; 0
	// if it is known to be durable. An answer that depends on the value waits
	// for it.
	Dirty base.Number
	// Era counts how often the value was forgotten while the entry was in use.
	// What was read from the store in an earlier era must not be filled in, and
	// a transaction that used the value in an earlier era must not commit.
	Era uint32

	slot             base.Slot // of Key
	holders, waiters lockList
	next             *Entry // of the same slot, used earlier
	older, newer     *Entry // neighbours in the idle list
}

// entryOverhead is the memory of an entry beside key and value, in bytes:
// the struct, its slot in the map, and what the allocator rounds up.
const entryOverhead = 192

func (e *Entry) bytes() int64 {
	return entryOverhead + int64(len(e.Key.Table)+len(e.Key.Key)+len(e.Value))
}

// lockList is a doubly linked list of locks in order of arrival.
type lockList struct {
	first, last *Lock
	n           int
}

func (q *lockList) push(l *Lock) {
	l.prev, l.next = q.last, nil
	if q.last == nil {
		q.first = l
	} else {
		q.last.next = l
	}
	q.last = l
	q.n++
}

func (q *lockList) remove(l *Lock) {
	if l.prev == nil {
		q.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		q.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.prev, l.next = nil, nil
	q.n--
}

// Table is the lock table and value cache of one shard of the keys. It is not
// safe for concurrent use: the caller holds the shard's latch.
type Table struct {
	slots   map[base.Slot]*Entry // the first of the slot's entries: see slot.go
	entries int
	// oldest and newest end the list of entries that nobody holds or wants, in
	// order of last use; they are the candidates of eviction.
	oldest, newest *Entry
	bytes          int64
	budget         int64
	// floor is the greatest Dirty among the values dropped: what is loaded again
	// may be as young as that.
	floor base.Number
}

// NewTable returns a table that keeps about budget bytes of idle entries.
// Entries in use are kept whatever they need.
func NewTable(budget int64) *Table {
	return &Table{slots: make(map[base.Slot]*Entry), budget: budget}
}

// Len returns the number of entries.
func (t *Table) Len() int { return t.entries }

// Bytes returns the approximate memory of the entries.
func (t *Table) Bytes() int64 { return t.bytes }

// Waiting returns how many requests wait for the key, and Holders how many
// transactions hold it.
func (t *Table) Waiting(k base.Key) (holders, waiters int, mode Mode) {
	e := t.find(k.Slot(), k)
	if e == nil {
		return 0, 0, 0
	}
	if e.holders.first != nil {
		mode = e.holders.first.Mode
	}
	return e.holders.n, e.waiters.n, mode
}

// Acquire asks for l. With wait it returns Granted or Queued, without it
// Granted or Refused. l.Key, l.Slot and l.Mode are set by the caller; l must
// not be held or queued, and one transaction must not ask twice for a key.
func (t *Table) Acquire(l *Lock, wait bool) Status {
	e := t.use(l.Slot, l.Key)
	if e.idle {
		t.unlinkIdle(e)
	}
	if e.waiters.n == 0 && e.admits(l.Mode) || plant.Is(plant.NoReadLock) && l.Mode == Shared {
		l.Entry, l.held = e, true
		e.holders.push(l)
		return Granted
	}
	if !wait {
		return Refused
	}
	l.Entry, l.held = e, false
	e.waiters.push(l)
	return Queued
}

// admits reports whether mode is compatible with every holder. All holders
// have the same mode, so one comparison is enough.
func (e *Entry) admits(mode Mode) bool {
	return e.holders.first == nil || compatible(e.holders.first.Mode, mode) || plant.Is(plant.NoReadLock) && e.holders.first.Mode == Shared
}

// Upgrade strengthens a held lock to cover mode without waiting. It is Refused
// if another transaction holds the key; a waiter does not matter, since it
// waits for this transaction anyway.
func (t *Table) Upgrade(l *Lock, mode Mode) Status {
	if l.Mode.Covers(mode) {
		return Granted
	}
	if l.Entry.holders.n > 1 && !plant.Is(plant.BlindUpgrade) {
		return Refused
	}
	l.Mode = l.Mode.Join(mode)
	return Granted
}

// Release gives l back and appends to woken the locks granted by that. The
// caller wakes their owners.
func (t *Table) Release(l *Lock, woken []*Lock) []*Lock {
	e := l.Entry
	e.holders.remove(l)
	l.Entry, l.held = nil, false
	return t.settle(e, woken)
}

// Cancel takes back a queued request. It returns false if the lock has been
// granted meanwhile: then the caller holds it. Requests behind it may be
// granted by that; they are appended to woken.
func (t *Table) Cancel(l *Lock, woken []*Lock) ([]*Lock, bool) {
	if l.held {
		return woken, false
	}
	e := l.Entry
	e.waiters.remove(l)
	l.Entry = nil
	return t.settle(e, woken), true
}

// settle grants what the head of the queue allows and makes an unused entry
// idle.
func (t *Table) settle(e *Entry, woken []*Lock) []*Lock {
	for l := e.waiters.first; l != nil && e.admits(l.Mode); l = e.waiters.first {
		e.waiters.remove(l)
		l.held = true
		e.holders.push(l)
		woken = append(woken, l)
	}
	if e.holders.n == 0 {
		t.linkIdle(e)
		t.evict()
	}
	return woken
}

// Fill records a value that was read from the store under a lock on the entry.
// It is ignored if the entry has a value already, which may be newer. Dirty is a
// batch that is not older than what others may have written of it; 0 if all that
// others have written is durable.
func (t *Table) Fill(e *Entry, version base.Version, value []byte, present bool, dirty base.Number) {
	if e.Loaded {
		return
	}
	t.replace(e, version, value, present)
	e.Dirty = max(t.floor, dirty)
}

// Install records a committed write of batch n. The caller holds the entry
// exclusively, or additively within the commit section.
func (t *Table) Install(e *Entry, version base.Version, value []byte, present bool, n base.Number) {
	if e.Loaded && version != e.Version+1 && !plant.Is(plant.BlindUpgrade) && !plant.Is(plant.NoReadLock) {
		panic(fmt.Sprintf("txn: version %d of %v follows version %d", version, e.Key, e.Version))
	}
	if plant.Is(plant.StaleCache) && version%8 == 0 {
		e.Version = version
		return
	}
	t.replace(e, version, value, present)
	e.Dirty = n
}

func (t *Table) replace(e *Entry, version base.Version, value []byte, present bool) {
	t.bytes += int64(len(value) - len(e.Value))
	e.Loaded, e.Version, e.Value, e.Present = true, version, value, present
}

func (t *Table) linkIdle(e *Entry) {
	e.idle, e.older, e.newer = true, t.newest, nil
	if t.newest == nil {
		t.oldest = e
	} else {
		t.newest.newer = e
	}
	t.newest = e
}

func (t *Table) unlinkIdle(e *Entry) {
	if e.older == nil {
		t.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		t.newest = e.older
	} else {
		e.newer.older = e.older
	}
	e.idle, e.older, e.newer = false, nil, nil
}

// evict drops the longest idle entries while the table is over its budget.
func (t *Table) evict() {
	for t.bytes > t.budget && t.oldest != nil {
		t.drop(t.oldest)
	}
}
