package tcp

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/internal/memory"
)

// workbench is an executor without a connection: a test puts bytes in and takes the
// answers out.
type workbench struct {
	t testing.TB
	*node
	x   *executor
	out []byte
}

func newWorkbench(t testing.TB, n *node, o rdma.QueuePairOptions) *workbench {
	o.SendCQ = n.cq
	q, err := n.p.NewQueuePair(o)
	if err != nil {
		t.Fatal(err)
	}
	return &workbench{t: t, node: n, x: &executor{q: q.(*queuePair), lead: true, in: input{bytes: make([]byte, inputSize)}}}
}

// feed puts bytes in, in parts of at most this size, until the executor ends. It
// returns the last step.
func (w *workbench) feed(b []byte, part int) (s step) {
	for {
		for s = w.x.step(); s == stepFull; s = w.x.step() {
			w.collect()
		}
		w.collect()
		if s != stepStarved || len(b) == 0 {
			return s
		}
		space := w.x.in.space()
		if len(space) == 0 {
			w.t.Fatal("the executor starves while its buffer is full")
		}
		n := copy(space, b[:min(part, len(b))])
		w.x.in.filled(n)
		b = b[n:]
	}
}

// collect takes the answers, long ones included.
func (w *workbench) collect() {
	w.x.flushAcks()
	a := &w.x.answers
	if len(a.bytes) > answerAt+responseHeader+copyMax {
		w.t.Fatalf("%d bytes of answers", len(a.bytes))
	}
	from := 0
	for _, b := range a.bodies {
		w.out = append(w.out, a.bytes[from:b.at]...)
		span, ok := w.p.regions.Acquire(b.key, b.addr, b.length)
		if !ok {
			w.t.Fatal("an answer is to come from outside of all regions")
		}
		w.out = append(w.out, span.Bytes...)
		span.Release()
		from = b.at
	}
	w.out = append(w.out, a.bytes[from:]...)
	a.reset()
}

func (w *workbench) close() {
	if err := w.x.q.Close(); err != nil {
		w.t.Error(err)
	}
}

// TestExecutorAnswers is the protocol in small: frames in, frames out.
func TestExecutorAnswers(t *testing.T) {
	n := newNode(t, Options{}, 64)
	remote := n.r.Remote()
	local := func(length uint32) rdma.Local { return rdma.Local{Length: length} }
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	write := func(offset uint64, b ...byte) []byte {
		return frame(rdma.Write(0, local(uint32(len(b))), remote, offset), b...)
	}
	read := func(offset uint64, length uint32) []byte { return frame(rdma.Read(0, local(length), remote, offset)) }
	misaligned := remote
	misaligned.Addr += 4
	long := rdma.Read(0, local(maxMessage+1), remote, 0)
	wrongKey := remote
	wrongKey.RKey ^= 1

	for _, c := range []struct {
		name    string
		in, out []byte
		last    step
		refused bool
	}{
		{"nothing", nil, nil, stepStarved, false},
		{"WRITEs are acknowledged together", cat(write(0, 1, 2, 3), write(8, 4), write(16)), ack(3), stepStarved, false},
		{"READ", cat(write(0, 1, 2, 3), read(0, 3)), cat(ack(1), data(1, 2, 3)), stepStarved, false},
		{"READ of nothing", read(0, 0), data(), stepStarved, false},
		{
			"CAS that finds what it expects, and one that does not",
			cat(write(8, words(5)...), frame(rdma.CAS(0, local(8), remote, 8, 5, 6)), frame(rdma.CAS(0, local(8), remote, 8, 5, 7)), read(8, 8)),
			cat(ack(1), data(words(5)...), data(words(6)...), data(words(6)...)), stepStarved, false,
		},
		{
			"FAA", cat(write(8, words(5)...), frame(rdma.FAA(0, local(8), remote, 8, 1<<63)), read(8, 8)),
			cat(ack(1), data(words(5)...), data(words(1<<63+5)...)), stepStarved, false,
		},
		{"half a head", read(0, 8)[:requestHeader-1], nil, stepStarved, false},
		{"half a payload", write(0, 1, 2, 3)[:requestHeader+2], nil, stepStarved, false},
		{
			"wrong key", cat(write(0, 1), frame(rdma.Read(0, local(1), wrongKey, 0)), write(0, 9)),
			cat(ack(1), failure(rdma.StatusRemoteAccess)), stepEnd, true,
		},
		{"beyond the end", read(60, 5), failure(rdma.StatusRemoteAccess), stepEnd, true},
		{"WRITE beyond the end, without waiting for the payload", write(60, make([]byte, copyMax+1)...)[:requestHeader], failure(rdma.StatusRemoteAccess), stepEnd, true},
		{"misaligned CAS", frame(rdma.CAS(0, local(8), misaligned, 0, 0, 1)), failure(rdma.StatusRemoteInvalid), stepEnd, true},
		{"FAA of 4 bytes", frame(rdma.FAA(0, local(4), remote, 0, 1)), failure(rdma.StatusRemoteInvalid), stepEnd, true},
		{"longer than allowed", frame(long), failure(rdma.StatusRemoteInvalid), stepEnd, true},
		{"kind 0", cat(write(0, 1), make([]byte, 64)), ack(1), stepEnd, false},
		{"an unknown kind", []byte{0x84}, nil, stepEnd, false},
		{"kind RECEIVE", []byte{byte(rdma.OpReceive), 0, 0, 0, 0, 0, 0, 0}, nil, stepEnd, false},
		{"a byte that must be zero", append([]byte{1, 1}, read(0, 8)[2:]...), nil, stepEnd, false},
		{"READ with imm", append(read(0, 8)[:20], 1, 0, 0, 0), nil, stepEnd, false},
		{"response to nothing", ack(1), nil, stepEnd, false},
		{"failure of nothing", failure(rdma.StatusRemoteAccess), nil, stepEnd, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, part := range []int{1, 7, inputSize} {
				clear(n.r.Bytes())
				w := newWorkbench(t, n, rdma.QueuePairOptions{})
				last := w.feed(c.in, part)
				// In small parts, acknowledgements come one by one.
				if part == inputSize && !bytes.Equal(w.out, c.out) || last != c.last || w.x.refused != c.refused {
					t.Errorf("parts of %d: answers %x, want %x; step %d, want %d; refused %v", part, w.out, c.out, last, c.last, w.x.refused)
				}
				if c.refused && (n.r.Bytes()[0] == 9 || w.x.q.Err() == nil) {
					t.Error("what follows a refused request is executed, or the queue pair not broken")
				}
				w.close()
			}
		})
	}
}

// TestExecutorRings follows a doorbell that finds no place.
func TestExecutorRings(t *testing.T) {
	n := newNode(t, Options{}, 8192)
	w := newWorkbench(t, n, rdma.QueuePairOptions{ReceiveDepth: 1})
	defer w.close()
	payload := bytes.Repeat([]byte{7}, 5000)
	ring := func(imm uint32, b []byte) []byte {
		return frame(rdma.WriteImm(0, rdma.Local{Length: uint32(len(b))}, n.r.Remote(), 0, imm), b...)
	}
	if s := w.feed(append(ring(1, nil), ring(2, payload)...), inputSize); s != stepCrowded {
		t.Fatalf("two doorbells for one place: step %d, want %d", s, stepCrowded)
	}
	if !bytes.Equal(w.out, ack(1)) {
		t.Errorf("answers %x, want one", w.out)
	}
	want := rdma.Completion{QP: w.x.q.Number(), Op: rdma.OpReceive, Imm: 1}
	if got := n.wait(t, 1); got[0] != want {
		t.Errorf("the first doorbell is %+v, want %+v", got[0], want)
	}
	if s := w.feed(nil, 1); s != stepStarved || !bytes.Equal(w.out, append(ack(1), ack(1)...)) {
		t.Errorf("with a place: step %d, answers %x", s, w.out)
	}
	want.Imm, want.Length = 2, 5000
	if got := n.wait(t, 1); got[0] != want || !bytes.Equal(n.r.Bytes()[:5000], payload) {
		t.Errorf("the second doorbell is %+v, want %+v, or its data is not there", got[0], want)
	}
	if c := w.x.q.Counters()[rdma.OpReceive]; c.Posted != 2 || c.Bytes != 5000 {
		t.Errorf("counters of doorbells: %+v", c)
	}
}

// model executes frames as plainly as can be said, on a slice.
type model struct {
	memory      []byte
	base        uint64
	key         uint32
	out         []byte
	acks, bells uint32
	refused     bool
}

// run returns whether the executor must end.
func (m *model) run(b []byte) bool {
	for len(b) > 0 {
		if !isRequest(b[0]) {
			// Nothing is outstanding, so a response ends it once it is complete.
			return !isResponse(b[0]) || len(b) >= responseHeader
		}
		op := rdma.Opcode(b[0])
		if len(b) < headOf(op) {
			return false
		}
		head, imm := b[:headOf(op)], binary.LittleEndian.Uint32(b[20:])
		if b[1] != 0 || b[2] != 0 || b[3] != 0 || imm != 0 && op != rdma.OpWriteImm {
			return true
		}
		length, addr, key := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint32(b[16:])
		b = b[len(head):]
		if length > maxMessage || op.Atomic() && (length != 8 || addr%8 != 0) {
			return m.refuse(rdma.StatusRemoteInvalid)
		}
		if (op == rdma.OpWrite || op == rdma.OpWriteImm) && length <= copyMax && int(length) > len(b) {
			return false
		}
		var at []byte
		if length > 0 {
			if key != m.key || addr < m.base || addr-m.base > uint64(len(m.memory)) || uint64(len(m.memory))-(addr-m.base) < uint64(length) {
				return m.refuse(rdma.StatusRemoteAccess)
			}
			at = m.memory[addr-m.base:][:length]
		}
		switch op {
		case rdma.OpRead:
			m.answer(data(at...))
		case rdma.OpWrite, rdma.OpWriteImm:
			n := copy(at, b)
			b = b[n:]
			if n < int(length) {
				return false
			}
			if op == rdma.OpWriteImm {
				m.bells++
			}
			m.acks++
		default:
			old := binary.NativeEndian.Uint64(at)
			m.answer(data(words(old)...))
			switch operand := binary.LittleEndian.Uint64(head[requestHeader:]); {
			case op == rdma.OpFAA:
				binary.NativeEndian.PutUint64(at, old+operand)
			case old == operand:
				binary.NativeEndian.PutUint64(at, binary.LittleEndian.Uint64(head[requestHeader+8:]))
			}
		}
	}
	return false
}

func (m *model) flush() {
	if m.acks > 0 {
		m.out = append(m.out, ack(m.acks)...)
		m.acks = 0
	}
}

func (m *model) answer(b []byte) {
	m.flush()
	m.out = append(m.out, b...)
}

func (m *model) refuse(s rdma.Status) bool {
	m.answer(failure(s))
	m.refused = true
	return true
}

// merged makes the answers of executor and model comparable: it joins runs of
// acknowledgements, which depend on how the bytes arrive, and blanks the data of
// long READs, which may be later than the requests that follow.
func merged(b []byte) (out []byte) {
	n := uint32(0)
	flush := func() {
		if n > 0 {
			out = append(out, ack(n)...)
			n = 0
		}
	}
	for len(b) >= responseHeader {
		length := binary.LittleEndian.Uint32(b[4:])
		if b[0] == kindAck {
			n += length
			b = b[responseHeader:]
			continue
		}
		flush()
		end := responseHeader
		if b[0] == kindData {
			end += int(length)
		}
		if out, b = append(out, b[:end]...), b[end:]; length > copyMax {
			clear(out[len(out)-int(length):])
		}
	}
	flush()
	return append(out, b...)
}

// Placeholders for what a fuzzer cannot guess.
const (
	fuzzKey  = "KEY!"
	fuzzBase = "BASE" // the upper half of an address; the lower is the offset
)

// place replaces placeholders by the key and addresses of a region.
func place(b []byte, r rdma.RemoteRegion) []byte {
	b = bytes.Clone(b)
	for i := 0; i+4 <= len(b); i++ {
		switch string(b[i : i+4]) {
		case fuzzKey:
			binary.LittleEndian.PutUint32(b[i:], r.RKey)
		case fuzzBase:
			if i >= 4 {
				offset := uint64(binary.LittleEndian.Uint32(b[i-4:]))
				binary.LittleEndian.PutUint64(b[i-4:], r.Addr+offset)
			}
		}
	}
	return b
}

// seed builds frames with placeholders.
func seed(requests ...rdma.WorkRequest) (b []byte) {
	for _, w := range requests {
		w.RKey = binary.LittleEndian.Uint32([]byte(fuzzKey))
		w.RemoteAddr |= uint64(binary.LittleEndian.Uint32([]byte(fuzzBase))) << 32
		b = append(b, frame(w)...)
		if w.Op == rdma.OpWrite || w.Op == rdma.OpWriteImm {
			b = append(b, bytes.Repeat([]byte{byte(w.Local.Length)}, int(w.Local.Length))...)
		}
	}
	return b
}

// FuzzFrames: whatever arrives, however cut into parts, has the effect that the
// model has, on the region whose key it has, and no other.
func FuzzFrames(f *testing.F) {
	const size = 3 * copyMax
	of := func(n uint32) rdma.Local { return rdma.Local{Length: n} }
	var origin rdma.RemoteRegion
	f.Add(seed(rdma.Write(0, of(8), origin, 8), rdma.Read(0, of(16), origin, 4), rdma.CAS(0, of(8), origin, 8, 0x0808080808080808, 3), rdma.FAA(0, of(8), origin, 8, 4)), uint16(5))
	f.Add(seed(rdma.Write(0, of(copyMax), origin, 1), rdma.Write(0, of(copyMax+1), origin, 0), rdma.Read(0, of(2*copyMax), origin, 0)), uint16(1000))
	f.Add(seed(rdma.WriteImm(0, of(0), origin, 0, 7), rdma.WriteImm(0, of(2*copyMax), origin, 0, 8), rdma.Read(0, of(size+1), origin, 0)), uint16(60000))
	f.Add(seed(rdma.Read(0, of(1), origin, size), rdma.Read(0, of(0), origin, size)), uint16(1))
	f.Add(append(ack(1), data(1, 2, 3)...), uint16(3))
	n := newNode(f, Options{}, size)
	quiet, err := n.p.Register(size)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := quiet.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, b []byte, part uint16) {
		clear(n.r.Bytes())
		b = place(b, n.r.Remote())
		m := model{memory: make([]byte, size), base: n.r.Remote().Addr, key: n.r.Remote().RKey}
		end := m.run(b)
		m.flush()
		w := newWorkbench(t, n, rdma.QueuePairOptions{ReceiveDepth: maxDepth})
		defer w.close()
		last := w.feed(b, int(part)+1)
		dst, rings := make([]rdma.Completion, 2*maxDepth), uint32(0)
		for got := n.cq.Poll(dst); got > 0; got = n.cq.Poll(dst) {
			rings += uint32(got)
		}
		if last == stepCrowded {
			return // more doorbells than places; the model has no bound
		}
		if (last == stepEnd) != end || w.x.refused != m.refused || rings != m.bells {
			t.Errorf("step %d, refused %v, %d doorbells; the model ends: %v, refuses: %v, has %d", last, w.x.refused, rings, end, m.refused, m.bells)
		}
		if got, want := merged(w.out), merged(m.out); !bytes.Equal(got, want) {
			t.Errorf("answers\n%x, the model's\n%x", got, want)
		}
		if !bytes.Equal(n.r.Bytes(), m.memory) {
			t.Error("the region differs from the model's")
		}
		if !bytes.Equal(quiet.Bytes(), make([]byte, size)) {
			t.Error("a region whose key nobody has was changed")
		}
	})
}

// outstanding posts requests of every kind and returns their number. Those that
// read have destinations of their own in the first part of the region.
func outstanding(t testing.TB, w *workbench) int {
	local := func(offset, length int) rdma.Local { return w.r.Local(offset, length) }
	var remote rdma.RemoteRegion
	requests := []rdma.WorkRequest{
		rdma.Write(0, local(0, 8), remote, 0),
		rdma.Read(1, local(0, 16), remote, 0),
		rdma.CAS(2, local(16, 8), remote, 0, 1, 2),
		rdma.WriteImm(3, local(0, 0), remote, 0, 9),
		rdma.FAA(4, local(24, 8), remote, 0, 1),
		rdma.Read(5, local(32, copyMax+3), remote, 0),
		rdma.Write(6, local(0, copyMax+1), remote, 0),
		rdma.Write(7, local(0, 1), remote, 0),
		rdma.Read(8, local(0, 0), remote, 0),
	}
	requests[6].Flags |= rdma.Fence
	requests[7].Flags &^= rdma.Signaled
	if err := w.x.q.Accept(strange.append(nil)); err != nil {
		t.Fatal(err)
	}
	post(t, w.x.q, requests...)
	return len(requests)
}

// FuzzResponses: whatever answers requests, each of them ends once and in order,
// and no local memory changes but what they name.
func FuzzResponses(f *testing.F) {
	const reach, size = 32 + copyMax + 3, 3 * copyMax
	long := make([]byte, copyMax+3)
	good := bytes.Join([][]byte{ack(1), data(make([]byte, 16)...), data(words(7)...), ack(1), data(words(9)...), data(long...), ack(2), data()}, nil)
	f.Add(good, uint16(60000))
	f.Add(good, uint16(10))
	f.Add(append(bytes.Clone(good[:40]), failure(rdma.StatusRemoteAccess)...), uint16(1))
	f.Add(ack(2), uint16(1))
	f.Add(append(good, ack(1)...), uint16(100))
	n := newNode(f, Options{}, size)
	f.Fuzz(func(t *testing.T, b []byte, part uint16) {
		for i := range n.r.Bytes() {
			n.r.Bytes()[i] = 0x55
		}
		w := newWorkbench(t, n, rdma.QueuePairOptions{Timeout: time.Hour})
		count := outstanding(t, w)
		last := w.feed(b, int(part)+1)
		if last == stepCrowded {
			t.Error("a doorbell without a region waits for a place, of which there are 128")
		}
		w.close()
		dst := make([]rdma.Completion, 256)
		got := n.cq.Poll(dst)
		next, failed := uint64(0), false
		for _, c := range dst[:got] {
			if c.Op == rdma.OpReceive {
				continue
			}
			if next == 7 && c.ID == 8 && !failed {
				next++ // it ended well and without a completion
			}
			if c.ID != next || failed && c.Status != rdma.StatusFlushed {
				t.Fatalf("request %d ended as %v, request %d was next, failed before: %v", c.ID, c.Status, next, failed)
			}
			failed = c.Status != rdma.StatusOK
			next++
		}
		if next != uint64(count) {
			t.Errorf("%d of %d requests have ended", next, count)
		}
		for i, v := range n.r.Bytes()[reach:] {
			if v != 0x55 {
				t.Fatalf("local byte %d, which is no destination, became %#x", reach+i, v)
			}
		}
	})
}

func TestExecutorCompletes(t *testing.T) {
	n := newNode(t, Options{}, 3*copyMax)
	long := bytes.Repeat([]byte{6}, copyMax+3)
	for _, part := range []int{1, 1000, inputSize} {
		w := newWorkbench(t, n, rdma.QueuePairOptions{Timeout: time.Hour})
		count := outstanding(t, w)
		for i, answer := range [][]byte{ack(1), data(bytes.Repeat([]byte{5}, 16)...), data(words(7)...), ack(1), data(words(9)...), data(long...), ack(1)} {
			if s := w.feed(answer, part); s != stepStarved {
				t.Fatalf("answer %d: step %d", i, s)
			}
			n.statuses(t, uint64(i), rdma.StatusOK)
		}
		w.feed(append(ack(1), data()...), part)
		n.statuses(t, uint64(count-1), rdma.StatusOK)
		var seven, nine [8]byte
		memory.PutWord(seven[:], 7)
		memory.PutWord(nine[:], 9)
		want := bytes.Join([][]byte{bytes.Repeat([]byte{5}, 16), seven[:], nine[:], long}, nil)
		if got := n.r.Bytes()[:len(want)]; !bytes.Equal(got, want) {
			t.Errorf("local memory is %x, want %x", got[:40], want[:40])
		}
		w.close()
		clear(n.r.Bytes())
	}
}
