package rdmatest

import (
	"fmt"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// node is a node within one behaviour. Its methods fail the behaviour if the
// node does not do what must always work.
type node struct {
	reporter
	*host
	scene *scene
}

// begin sends an operation whose answer end takes later.
func (n *node) begin(op operation) *pending {
	p := &pending{node: n, op: op, answer: n.link.send(op)}
	n.scene.pending[p] = true
	return p
}

// pending is an operation under way.
type pending struct {
	node   *node
	op     operation
	answer <-chan answer
}

// try waits for the answer. An operation that takes several bounds fails the
// behaviour with the stacks of the node, which is given up.
func (p *pending) try() (any, error) {
	n := p.node
	n.Helper()
	delete(n.scene.pending, p)
	bound := 3 * n.scene.Bound
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case a := <-p.answer:
		return a.Value, a.Fault.err()
	case <-timer.C:
		stacks := any("none")
		select {
		case a := <-n.link.send(doStacks{}):
			stacks = a.Value
		case <-time.After(n.scene.Bound):
		}
		n.dead = true
		n.link.abandon()
		n.Fatalf("node %s: %s has not returned after %v; its stacks are\n%v", n.name, describe(p.op), bound, stacks)
		return nil, nil
	}
}

// describe is what messages show of an operation.
func describe(op operation) string { return fmt.Sprintf("%T %.300s", op, fmt.Sprintf("%+v", op)) }

// try runs an operation that may fail.
func (n *node) try(op operation) (any, error) {
	n.Helper()
	return n.begin(op).try()
}

// must runs an operation that must not fail.
func (n *node) must(op operation) {
	n.Helper()
	if _, err := n.try(op); err != nil {
		n.Fatalf("node %s: %s: %v", n.name, describe(op), err)
	}
}

// ask runs an operation that must not fail and returns its result.
func ask[R any](n *node, op operation) R {
	n.Helper()
	return take[R](n.begin(op))
}

// take waits for an operation that must not fail and returns its result.
func take[R any](p *pending) R {
	p.node.Helper()
	v, err := p.try()
	if err != nil {
		p.node.Fatalf("node %s: %s: %v", p.node.name, describe(p.op), err)
	}
	return v.(R)
}

// finish closes the node's provider and lets the node go.
func (n *node) finish() {
	n.Helper()
	if n.dead {
		return
	}
	v, err := n.try(doFinish{Leaks: n.scene.session.cluster.processes()})
	if err != nil {
		n.Errorf("close node %s: %v", n.name, err)
	} else {
		for _, leak := range v.(finished).Leaks {
			n.Errorf("node %s leaks: %s", n.name, leak)
		}
	}
	n.gone()
}

// gone lets go of a node that was closed or killed.
func (n *node) gone() {
	n.Helper()
	n.dead = true
	if err := n.link.close(); err != nil {
		n.Errorf("let go of node %s: %v", n.name, err)
	}
}

// region is registered memory of a node.
type region struct {
	node   *node
	number int
	size   int
	remote rdma.RemoteRegion
	all    rdma.Local
}

// region registers memory, which is zeroed.
func (n *node) region(size int) *region {
	n.Helper()
	return n.painted(size, 0)
}

// painted registers memory with the pattern of a seed.
func (n *node) painted(size int, seed uint64) *region {
	n.Helper()
	r := ask[registered](n, doRegister{size, seed})
	if r.Wrong != "" {
		n.Fatalf("node %s: a region of %d bytes is not as promised: %s", n.name, size, r.Wrong)
	}
	return &region{n, r.Region, size, r.Remote, r.Local}
}

// local names a part of the region.
func (r *region) local(offset, length int) rdma.Local {
	return rdma.Local{Addr: r.all.Addr + uint64(offset), Length: uint32(length), LKey: r.all.LKey}
}

func (r *region) close()           { r.node.Helper(); r.node.must(doCloseRegion{r.number}) }
func (r *region) fill(seed uint64) { r.node.Helper(); r.node.must(doFill{r.number, seed}) }
func (r *region) load(at int) uint64 {
	r.node.Helper()
	return ask[uint64](r.node, doLoad{r.number, at})
}

func (r *region) store(at int, v uint64) {
	r.node.Helper()
	r.node.must(doStore{r.number, at, v})
}

func (r *region) set(at int, b []byte) {
	r.node.Helper()
	r.node.must(doSet{r.number, at, b})
}

func (r *region) get(at, length int) []byte {
	r.node.Helper()
	return ask[[]byte](r.node, doGet{r.number, at, length})
}

// verify fails the behaviour if the region is not the pattern of ground,
// changed in parts.
func (r *region) verify(what string, ground uint64, parts ...copied) {
	r.node.Helper()
	r.compare(what, doVerify{Region: r.number, Ground: ground, Parts: parts})
}

// verifyLast is verify, and closes the region.
func (r *region) verifyLast(what string, ground uint64, parts ...copied) {
	r.node.Helper()
	r.compare(what, doVerify{Region: r.number, Ground: ground, Parts: parts, Close: true})
}

func (r *region) compare(what string, op doVerify) {
	r.node.Helper()
	if wrong := ask[string](r.node, op); wrong != "" {
		r.node.Fatalf("%s: memory of node %s: %s", what, r.node.name, wrong)
	}
}

// queue is a completion queue of a node.
type queue struct {
	node   *node
	number int
}

// queue makes a completion queue.
func (n *node) queue(options rdma.CompletionQueueOptions) *queue {
	n.Helper()
	return &queue{n, int(ask[uint64](n, doQueue{options}))}
}

// wait returns the next count completions.
func (q *queue) wait(what string, count int) []rdma.Completion {
	q.node.Helper()
	return q.taken(what, count, q.begin(count))
}

// begin begins to wait for count completions.
func (q *queue) begin(count int) *pending {
	return q.node.begin(doWait{q.number, count, q.node.scene.Bound})
}

// taken ends a begin.
func (q *queue) taken(what string, count int, p *pending) []rdma.Completion {
	q.node.Helper()
	return q.enough(what, count, take[waited](p))
}

// enough checks that all completions came.
func (q *queue) enough(what string, count int, w waited) []rdma.Completion {
	q.node.Helper()
	if w.Fault != nil {
		q.node.Fatalf("%s: %d of %d completions came to node %s: %v; they are %+v", what, len(w.Completions), count, q.node.name, w.Fault, tail(w.Completions))
	}
	return w.Completions
}

// poll returns what is there, at most count.
func (q *queue) poll(count int) []rdma.Completion {
	q.node.Helper()
	return ask[waited](q.node, doPoll{q.number, count}).Completions
}

// tail is what a message shows of many completions.
func tail(c []rdma.Completion) []rdma.Completion { return c[max(0, len(c)-8):] }

// pairOptions are those of a queue pair; zero values are the provider's
// defaults but for the queues, which are made, and the timeout.
type pairOptions struct {
	send, receive           *queue
	sendDepth, receiveDepth int
	timeout                 time.Duration
	peer                    string
	accept                  *end // the active end, if this is to accept it at once
}

// end is one end of a connection.
type end struct {
	*paired
	node *node
	// cq gets the completions of what is posted here, doorbells the peer's.
	cq, doorbells *queue
}

// pair makes a queue pair.
func (n *node) pair(o pairOptions) *end {
	n.Helper()
	if o.timeout == 0 {
		o.timeout = n.scene.Bound // a busy machine is not a silent peer
	}
	if o.peer == "" {
		o.peer = "peer of " + n.name
	}
	op := doPair{Options: rdma.QueuePairOptions{Peer: o.peer, SendDepth: o.sendDepth, ReceiveDepth: o.receiveDepth, Timeout: o.timeout}, NewCQ: o.send == nil}
	if o.send != nil {
		op.SendCQ = o.send.number
	}
	if o.receive != nil {
		op.ReceiveCQ = o.receive.number
	}
	if o.accept != nil {
		op.Accept = o.accept.Address
	}
	p := ask[paired](n, op)
	e := &end{paired: &p, node: n, cq: &queue{n, p.SendCQ}, doorbells: o.receive}
	if o.receive == nil {
		e.doorbells = e.cq
	}
	if len(p.Address) == 0 || len(p.Address) > rdma.MaxAddress {
		n.Fatalf("the address of a queue pair of node %s has %d bytes, want 1..%d", n.name, len(p.Address), rdma.MaxAddress)
	}
	return e
}

// join connects two ends.
func join(active, passive *end) {
	active.node.Helper()
	passive.node.must(doAccept{passive.Pair, active.Address})
	active.node.must(doConnect{active.Pair, passive.Address, active.node.scene.Bound})
}

// connect makes a queue pair on each node and connects them.
func (sc *scene) connect(active, passive *node, o pairOptions) (*end, *end) {
	sc.Helper()
	x := active.pair(o)
	o.accept = x
	y := passive.pair(o)
	active.must(doConnect{x.Pair, y.Address, sc.Bound})
	return x, y
}

// tryPost posts requests of which not all may be taken.
func (e *end) tryPost(requests ...rdma.WorkRequest) (int, error) {
	e.node.Helper()
	p := ask[posted](e.node, doPost{Pair: e.Pair, Requests: requests})
	return p.Count, p.Fault.err()
}

// post posts requests that must all be taken.
func (e *end) post(requests ...rdma.WorkRequest) {
	e.node.Helper()
	if n, err := e.tryPost(requests...); err != nil {
		e.node.Fatalf("node %s posted %d of %d requests: %v", e.node.name, n, len(requests), err)
	}
}

// complete posts requests, of which the signaled ones must complete well and in
// order.
func (e *end) complete(what string, requests ...rdma.WorkRequest) {
	e.node.Helper()
	e.completed(what, requests, ask[posted](e.node, e.completing(requests)))
}

// completing is the operation of complete.
func (e *end) completing(requests []rdma.WorkRequest) doPost {
	return doPost{Pair: e.Pair, Requests: requests, Wait: doWait{e.cq.number, len(e.signaled(requests)), e.node.scene.Bound}}
}

// completed checks the answer to completing.
func (e *end) completed(what string, requests []rdma.WorkRequest, p posted) {
	e.node.Helper()
	if p.Fault != nil {
		e.node.Fatalf("%s: node %s posted %d of %d requests: %v", what, e.node.name, p.Count, len(requests), p.Fault)
	}
	want := e.signaled(requests)
	e.node.compare(what, e.cq.enough(what, len(want), p.Waited), want)
}

// results posts requests, which must all be taken, and returns count completions.
func (e *end) results(what string, count int, requests ...rdma.WorkRequest) []rdma.Completion {
	e.node.Helper()
	p := ask[posted](e.node, doPost{Pair: e.Pair, Requests: requests, Wait: doWait{e.cq.number, count, e.node.scene.Bound}})
	if p.Fault != nil {
		e.node.Fatalf("%s: node %s posted %d of %d requests: %v", what, e.node.name, p.Count, len(requests), p.Fault)
	}
	return e.cq.enough(what, count, p.Waited)
}

// expect takes the completions of posted requests, which must be well.
func (e *end) expect(what string, requests ...rdma.WorkRequest) {
	e.node.Helper()
	want := e.signaled(requests)
	e.node.compare(what, e.cq.wait(what, len(want)), want)
}

// signaled returns the good completions of requests.
func (e *end) signaled(requests []rdma.WorkRequest) (want []rdma.Completion) {
	for i := range requests {
		if r := &requests[i]; r.Flags&rdma.Signaled != 0 {
			want = append(want, rdma.Completion{ID: r.ID, QP: e.Number, Op: r.Op})
		}
	}
	return want
}

// rings takes doorbells and compares them with those that requests should ring.
func (e *end) rings(what string, requests ...rdma.WorkRequest) {
	e.node.Helper()
	var want []rdma.Completion
	for i := range requests {
		if r := &requests[i]; r.Op == rdma.OpWriteImm {
			want = append(want, rdma.Completion{QP: e.Number, Op: rdma.OpReceive, Imm: r.Imm, Length: r.Local.Length})
		}
	}
	e.node.compare(what, e.doorbells.wait(what, len(want)), want)
}

func (n *node) compare(what string, got, want []rdma.Completion) {
	n.Helper()
	for i := range want {
		if got[i] != want[i] {
			n.Fatalf("%s: completion %d of %d at node %s is %+v (%v), want %+v", what, i, len(want), n.name, got[i], got[i].Status, want[i])
		}
	}
}

// settle rings a doorbell at the peer and waits for it there: what was written
// on this queue pair before is visible then.
func (e *end) settle(peer *end) {
	e.node.Helper()
	bell := rdma.WriteImm(1<<63, rdma.Local{}, rdma.RemoteRegion{}, 0, 0xbe11)
	e.complete("a doorbell without data", bell)
	peer.rings("a doorbell without data", bell)
}
