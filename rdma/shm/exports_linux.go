package shm

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// exports are the regions that peers may map, by key.
type exports struct {
	// file and directory are the directory, which lives until close.
	file      int
	directory *memory.Mapping

	mu    sync.Mutex // a leaf
	byKey map[uint32]*export
	// open is how many have been added and not removed; -1 after close.
	open int
	// free slots; last is the newest generation.
	free []uint32
	last uint64
}

// export is one region that peers may map.
type export struct {
	file       int
	key, slot  uint32
	generation uint64 // 0: it was never added
	addr, size uint64
}

func newExports() (*exports, error) {
	fd, directory, err := memory.NewFileForReaders("tenure-directory", directorySize)
	if err != nil {
		return nil, err
	}
	e := &exports{file: fd, directory: directory, byKey: map[uint32]*export{}}
	for slot := range uint32(directorySlots) {
		e.free = append(e.free, directorySlots-1-slot)
	}
	return e, nil
}

// add opens x, whose file is known, to peers.
func (e *exports) add(x *export, r rdma.RemoteRegion) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open < 0 {
		return rdma.ErrClosed
	}
	if len(e.free) == 0 {
		return fmt.Errorf("%w: %d regions are registered, which is the limit", rdma.ErrInUse, directorySlots)
	}
	e.open++
	e.last++
	x.key, x.addr, x.size = r.RKey, r.Addr, r.Size
	x.slot, x.generation = e.free[len(e.free)-1], e.last
	e.free = e.free[:len(e.free)-1]
	e.byKey[x.key] = x
	e.directory.Store(generationAt(x.slot), x.generation)
	return nil
}

// remove closes x to peers: a request that begins now is refused.
func (e *exports) remove(x *export) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x.generation != 0 {
		e.open--
		e.directory.Store(generationAt(x.slot), 0)
		e.directory.Store(closingsAt, e.directory.Load(closingsAt)+1)
		e.free = append(e.free, x.slot)
		if e.byKey[x.key] == x { // else a newer region got the same key
			delete(e.byKey, x.key)
		}
	}
	if err := unix.Close(x.file); err != nil {
		return fmt.Errorf("close the file of a region: %w", err)
	}
	return nil
}

// announce hands the region's file to the peer, if its socket has room.
func (x *export) announce(l *link) error {
	return send(l.conn, &message{kind: grant, key: x.key, slot: x.slot, generation: x.generation, addr: x.addr, size: x.size}, x.file)
}

// announceAll announces regions that are open to a new peer, as many as it would
// map.
func (e *exports) announceAll(l *link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, x := range e.byKey {
		if n++; n > maxAnnounced || x.announce(l) != nil {
			return // the peer can ask for the others
		}
	}
}

// with calls use with the open region that has this key, whose file stays open
// meanwhile, and says whether there is one. Use must not block.
func (e *exports) with(key uint32, use func(*export) error) (found bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.byKey[key]
	if x == nil {
		return false, nil
	}
	return true, use(x)
}

// close frees the directory. While regions are open it does nothing and returns
// their number.
func (e *exports) close() (open int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open != 0 {
		return e.open, nil
	}
	e.open = -1
	return 0, errors.Join(e.directory.Unmap(), unix.Close(e.file))
}
