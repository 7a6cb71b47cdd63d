//go:build linux && cgo && rdma

package node_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/wire"
	"github.com/tenure-faas/tenure/worker"
)

// creditBytes is a doorbell without data on the wire: the UDP datagram of a
// WRITE_IMM of no bytes, of which the headers of UDP, of the transport, of the
// remote address, the immediate value and the checksum are all. A message has 64
// bytes and more behind that.
const creditBytes = 8 + 12 + 16 + 4 + 4

// onWire is what the counter has seen between this machine and the others.
type onWire struct {
	// cas were sent to the words of another machine, messages into its rings.
	cas, messages uint64
	// The rest is no transaction's: credits are sent for many messages, proofs once
	// a second while messages are. The others are not used by leases.
	credits, proofs, others uint64
	// flows are the queue pairs that something went to.
	flows int
}

func (w onWire) minus(o onWire) onWire {
	return onWire{w.cas - o.cas, w.messages - o.messages, w.credits - o.credits, w.proofs - o.proofs, w.others - o.others, w.flows - o.flows}
}

func (w onWire) plus(o onWire) onWire {
	return onWire{w.cas + o.cas, w.messages + o.messages, w.credits + o.credits, w.proofs + o.proofs, w.others + o.others, w.flows + o.flows}
}

func (w onWire) String() string {
	return fmt.Sprintf("%d CAS, %d WRITE, beside %d credits and %d proofs", w.cas, w.messages, w.credits, w.proofs)
}

// wire reads the counter. A flow goes to one queue pair, and one to the active end
// of a link has credits only.
func (c *verbsCluster) wire(t *testing.T) (sum onWire) {
	t.Helper()
	s, err := c.counter.Read()
	if err != nil {
		t.Fatal(err)
	}
	if s.Malformed+s.Untracked > 0 {
		t.Fatalf("the counter does not know all packets: %v", &s)
	}
	sum.flows = len(s.Flows)
	for i := range s.Flows {
		f := &s.Flows[i]
		v := f.Verbs()
		sum.cas += v[rdma.OpCAS]
		sum.proofs += v[rdma.OpRead]
		sum.others += v[rdma.OpWrite] + v[rdma.OpFAA]
		if p := f.Packets(wire.WriteOnlyImm); p.Bytes == creditBytes*p.All && v[rdma.OpCAS] == 0 {
			sum.credits += v[rdma.OpWriteImm]
		} else {
			sum.messages += v[rdma.OpWriteImm]
		}
	}
	return sum
}

// execute runs one transaction on one worker, past the gateway. It may be called
// from any goroutine of a test.
func (c *verbsCluster) execute(t *testing.T, name string, req *worker.Request) bool {
	req.ID = base.NewInvocationID(time.Now(), uint16(rand.Uint32()), rand.Uint64())
	r := c.workers[name].Execute(t.Context(), req)
	if r.Err != nil {
		t.Errorf("worker %s: %v", name, r.Err)
	}
	return r.Err == nil
}

// do runs operations as one transaction, which must succeed.
func (c *verbsCluster) do(t *testing.T, name string, ops ...worker.Op) {
	t.Helper()
	if !c.execute(t, name, &worker.Request{Name: "txn", Ops: ops}) {
		t.FailNow()
	}
}

// verbsOps are operations of one kind on keys of the table.
func verbsOps(kind worker.OpKind, keys ...string) (ops []worker.Op) {
	for _, k := range keys {
		op := worker.Op{Kind: kind, Key: base.Key{Table: "t", Key: k}}
		if kind == worker.OpPut {
			op.Value = []byte("v")
		}
		ops = append(ops, op)
	}
	return ops
}

// perKey is what a transaction costs on the wire for each of its keys.
type perKey struct{ cas, messages uint64 }

// costRow is a line of the table: before prepares keys, do is counted.
type costRow struct {
	name string
	// home is the worker that has the words of the keys.
	home string
	// each is how many keys a transaction has.
	each       int
	before, do func(keys ...string)
	want       perKey
}

// costKeys is how many keys a line is counted with.
const costKeys = 20

// costRows is the table of the protocol, as far as transactions of two workers make
// it: w1 asks and w2 has, unless a line says otherwise. What is in the own memory
// is not on the wire: a CAS is seen where the word is at the other.
func (c *verbsCluster) costRows(t *testing.T) []costRow {
	put := func(w string) func(...string) {
		return func(keys ...string) { c.do(t, w, verbsOps(worker.OpPut, keys...)...) }
	}
	get := func(w string) func(...string) {
		return func(keys ...string) { c.do(t, w, verbsOps(worker.OpGet, keys...)...) }
	}
	all := func(steps ...func(...string)) func(...string) {
		return func(keys ...string) {
			for _, step := range steps {
				step(keys...)
			}
		}
	}
	return []costRow{
		{"held here, write", "w2", 1, put("w1"), put("w1"), perKey{0, 0}},
		{"held here, read", "w2", 1, put("w1"), get("w1"), perKey{0, 0}},
		{"free, word at the other", "w2", 1, all(), put("w1"), perKey{1, 0}},
		{"free, word here", "w1", 1, all(), put("w1"), perKey{0, 0}},
		{"idle elsewhere, right guess", "w2", 1, all(put("w1"), put("w2")), put("w1"), perKey{1, 2}},
		{"idle elsewhere, right guess, word here", "w1", 1, all(put("w1"), put("w2")), put("w1"), perKey{0, 2}},
		{"idle elsewhere, right guess, the other way", "w1", 1, all(put("w2"), put("w1")), put("w2"), perKey{1, 2}},
		{"idle elsewhere, right guess, five keys", "w2", 5, all(put("w1"), put("w2")), put("w1"), perKey{1, 2}},
		{"idle elsewhere, wrong guess", "w2", 1, put("w2"), put("w1"), perKey{2, 2}},
		{"copy, no hint", "w2", 1, put("w2"), get("w1"), perKey{1, 2}},
		{"copy, right hint", "w2", 1, all(put("w1"), put("w2")), get("w1"), perKey{0, 2}},
		{"copy here, shared read hit", "w2", 1, all(put("w2"), get("w1")), get("w1"), perKey{0, 0}},
		{"write with one reader", "w2", 1, all(put("w2"), get("w1")), put("w2"), perKey{0, 2}},
	}
}

// costTest is the state of testCost.
type costTest struct {
	*verbsCluster
	t    *testing.T
	view *lease.Members
	// numbers are those of the workers.
	numbers map[string]lease.Worker
	// used are the slots of earlier keys.
	used map[base.Slot]bool
}

// testCost counts verbs on the wire between two machines, which have nothing else
// to say to each other: what transactions cost, line by line.
func (c *verbsCluster) testCost(t *testing.T) {
	published := c.now()
	view, err := published.Lease()
	if err != nil {
		t.Fatal(err)
	}
	x := &costTest{c, t, view, map[string]lease.Worker{}, map[base.Slot]bool{}}
	for _, m := range published.Members {
		x.numbers[m.Name] = m.Worker
	}
	// Each worker gets its share of the gate of the table.
	for _, w := range []string{"w1", "w2", "w1"} {
		c.do(t, w, verbsOps(worker.OpPut, "warm "+w)...)
	}
	for _, row := range c.costRows(t) {
		x.count(row.name, row.home, row.want, func(keys []string) (onWire, time.Duration) {
			for some := range slices.Chunk(keys, row.each) {
				row.before(some...)
			}
			before, began := c.wire(t), time.Now()
			for some := range slices.Chunk(keys, row.each) {
				row.do(some...)
			}
			took := time.Since(began)
			return c.wire(t).minus(before), took
		})
	}
	x.count("contended hand-over", "w2", perKey{0, 1}, x.handOver)
	if now := c.now(); now.View != published.View {
		t.Errorf("view %d became view %d meanwhile: the counts are not those of one view", published.View, now.View)
	}
}

// count counts what costKeys keys cost and judges it. If a link was made anew
// meanwhile, because a machine stood still for too long, its messages may have been
// repeated, and it counts once more, with other keys.
func (x *costTest) count(name, home string, want perKey, measure func(keys []string) (onWire, time.Duration)) {
	x.t.Helper()
	const tries = 3
	for try := 1; ; try++ {
		got, took := measure(x.keys(fmt.Sprint(name, try), home))
		if got.flows > 0 && try < tries {
			x.t.Logf("%s: a link was made anew: %v", name, got)
			continue
		}
		x.t.Logf("%-45s %d keys: %v; %v each", name, costKeys, got, (took / costKeys).Round(10*time.Microsecond))
		if got.cas != want.cas*costKeys || got.messages != want.messages*costKeys || got.others > 0 {
			x.t.Errorf("%s: %v for %d keys, and %d other verbs; want %d CAS and %d WRITE each", name, got, costKeys, got.others, want.cas, want.messages)
		}
		// A proof follows messages on each of the two links after a second, and
		// nothing else reads.
		if proofs := 2 * (2 + uint64(took/time.Second)); got.proofs > proofs {
			x.t.Errorf("%s: %d READs in %v, want at most %d proofs", name, got.proofs, took, proofs)
		}
		return
	}
}

// keys makes costKeys keys whose words are at a worker, each of a slot of its own.
func (x *costTest) keys(name, home string) (keys []string) {
	for i := 0; len(keys) < costKeys; i++ {
		k := fmt.Sprintf("%s %d", name, i)
		slot := base.Key{Table: "t", Key: k}.Slot()
		if x.view.Home(slot) == x.numbers[home] && !x.used[slot] {
			x.used[slot] = true
			keys = append(keys, k)
		}
	}
	return keys
}

// handOver has a request wait at the holder, which is in a transaction: when that
// ends, the lease costs one message, the value included.
func (x *costTest) handOver(keys []string) (sum onWire, took time.Duration) {
	listener, err := net.Listen("tcp", net.JoinHostPort(verbsAddress(1), verbsHolders))
	if err != nil {
		x.t.Fatal(err)
	}
	defer listener.Close()
	if err := listener.(*net.TCPListener).SetDeadline(time.Now().Add(verbsStart)); err != nil {
		x.t.Fatal(err)
	}
	var asked onWire
	for _, k := range keys {
		put := verbsOps(worker.OpPut, k)
		x.do(x.t, "w1", put...) // so that it knows the word
		x.do(x.t, "w2", put...)
		before := x.wire(x.t)
		var running sync.WaitGroup
		running.Go(func() {
			x.execute(x.t, "w2", &worker.Request{Function: "stay", Handler: "write", Input: fmt.Appendf(nil, `{"k":%q}`, k)})
		})
		holder, err := listener.Accept()
		if err != nil {
			x.t.Fatalf("the holder's transaction does not begin: %v", err)
		}
		running.Go(func() { x.execute(x.t, "w1", &worker.Request{Name: "txn", Ops: put}) })
		waiting := x.awaitRequest(before)
		began := time.Now()
		if err := holder.Close(); err != nil {
			x.t.Error(err)
		}
		running.Wait()
		took += time.Since(began)
		sum, asked = sum.plus(x.wire(x.t).minus(waiting)), asked.plus(waiting.minus(before))
	}
	x.t.Logf("contended, until the request waits: %v", asked)
	if asked.flows == 0 && (asked.cas != costKeys || asked.messages != costKeys) {
		x.t.Errorf("%d requests that wait have cost %v, want a CAS and a message each", costKeys, asked)
	}
	sum.flows += asked.flows
	return sum, took
}

// awaitRequest waits until a message was sent, and returns what the wire has seen
// by then.
func (x *costTest) awaitRequest(before onWire) onWire {
	x.t.Helper()
	for deadline := time.Now().Add(verbsStart); ; time.Sleep(time.Millisecond) { // the counter has no channel to wait on
		now := x.wire(x.t)
		if now.minus(before).messages > 0 {
			return now
		}
		if time.Now().After(deadline) {
			x.t.Fatal("nobody asks the holder")
		}
	}
}
