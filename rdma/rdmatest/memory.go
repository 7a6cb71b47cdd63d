package rdmatest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// doRegister registers a region and, if Seed is not 0, paints it with the pattern
// of that seed. The answer says also what was wrong with the memory before.
type doRegister struct {
	Size int
	Seed uint64
}

// registered describes a region.
type registered struct {
	Region int
	Remote rdma.RemoteRegion
	// Local is all of it.
	Local rdma.Local
	// Wrong is "" if the memory is as promised.
	Wrong string
}

func (o doRegister) run(a *agent) (any, error) {
	r, err := a.provider.Register(o.Size)
	if err != nil {
		return nil, err
	}
	reply := registered{Region: keep(a, a.regions, r), Remote: r.Remote(), Local: r.Local(0, o.Size)}
	b := r.Bytes()
	switch half := o.Size / 2; {
	case len(b) != o.Size || reply.Remote.Size != uint64(o.Size) || reply.Local.Length != uint32(o.Size):
		reply.Wrong = fmt.Sprintf("%d bytes, remotely %d, locally %d", len(b), reply.Remote.Size, reply.Local.Length)
	case reply.Local.Addr%8 != 0 || reply.Remote.Addr%8 != 0:
		reply.Wrong = fmt.Sprintf("it begins at %#x, remotely at %#x", reply.Local.Addr, reply.Remote.Addr)
	case len(bytes.TrimLeft(b, "\x00")) > 0:
		reply.Wrong = "it is not zeroed"
	case r.Local(half, o.Size-half) != rdma.Local{Addr: reply.Local.Addr + uint64(half), Length: uint32(o.Size - half), LKey: reply.Local.LKey}:
		reply.Wrong = fmt.Sprintf("its second half is %+v, all of it is %+v", r.Local(half, o.Size-half), reply.Local)
	}
	if o.Seed != 0 {
		paint(b, o.Seed, 0)
	}
	return reply, nil
}

// doCloseRegion closes a region.
type doCloseRegion struct{ Region int }

func (o doCloseRegion) run(a *agent) (any, error) { return nil, a.region(o.Region).Close() }

// doFill paints a region with the pattern of a seed.
type doFill struct {
	Region int
	Seed   uint64
}

func (o doFill) run(a *agent) (any, error) {
	paint(a.region(o.Region).Bytes(), o.Seed, 0)
	return nil, nil
}

// doVerify compares a region with the pattern of Ground, changed in Parts, and
// then closes it if Close is set. The answer is the first difference, or "".
type doVerify struct {
	Region int
	Ground uint64
	Parts  []copied
	Close  bool
}

func (o doVerify) run(a *agent) (any, error) {
	r := a.region(o.Region)
	wrong := difference(bytes.Clone(r.Bytes()), o.Ground, o.Parts)
	if o.Close {
		return wrong, r.Close()
	}
	return wrong, nil
}

// doSet copies bytes into a region.
type doSet struct {
	Region, Offset int
	Bytes          []byte
}

func (o doSet) run(a *agent) (any, error) {
	copy(a.region(o.Region).Bytes()[o.Offset:], o.Bytes)
	return nil, nil
}

// doGet copies bytes out of a region.
type doGet struct{ Region, Offset, Length int }

func (o doGet) run(a *agent) (any, error) {
	return bytes.Clone(a.region(o.Region).Bytes()[o.Offset:][:o.Length]), nil
}

// doLoad loads a word with the node's processor.
type doLoad struct{ Region, Offset int }

func (o doLoad) run(a *agent) (any, error) { return a.region(o.Region).Load(o.Offset), nil }

// doStore stores a word with the node's processor.
type doStore struct {
	Region, Offset int
	Value          uint64
}

func (o doStore) run(a *agent) (any, error) {
	a.region(o.Region).Store(o.Offset, o.Value)
	return nil, nil
}

// doQuiet looks at a region again and again for the time For. The answer says
// what changed, or "".
type doQuiet struct {
	Region int
	For    time.Duration
}

func (o doQuiet) run(a *agent) (any, error) {
	b := a.region(o.Region).Bytes()
	return changes(b, bytes.Clone(b), o.For), nil
}

// changes compares memory with what it was, again and again for a time.
func changes(now, before []byte, during time.Duration) string {
	ticker := time.NewTicker(min(during, time.Millisecond))
	defer ticker.Stop()
	for start := time.Now(); ; <-ticker.C {
		for i := range now {
			if now[i] != before[i] {
				return fmt.Sprintf("byte %d became %#02x, it was %#02x, %v after the first look", i, now[i], before[i], time.Since(start))
			}
		}
		if time.Since(start) > during {
			return ""
		}
	}
}

// doCut revokes or closes a queue pair and looks at a region from the moment at
// which that has returned, for the time For.
type doCut struct {
	Pair   int
	Close  bool
	Region int
	Bound  time.Duration
	For    time.Duration
}

// cutOff is what the memory was then, and what changed in it.
type cutOff struct {
	Memory  []byte
	Changed string
}

func (o doCut) run(a *agent) (any, error) {
	b := a.region(o.Region).Bytes()
	var op operation = doRevoke{o.Pair, o.Bound}
	if o.Close {
		op = doClosePair{Pair: o.Pair}
	}
	if _, err := op.run(a); err != nil {
		return nil, err
	}
	c := cutOff{Memory: bytes.Clone(b)}
	c.Changed = changes(b, c.Memory, o.For)
	return c, nil
}
