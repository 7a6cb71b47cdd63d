package membership

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
)

// The model plays worker processes with clocks of their own speed, a network that
// delays, doubles and loses, and a leasemgr that stops at any moment. It knows of
// each instance until when it may believe to be a member, from every answer that
// was ever given, whether it arrived or not.

// process is one instance of a worker. Its clock shows rate times ours.
type process struct {
	Instance
	rate   float64
	member lease.Member // once admitted, by an answer that arrived
	left   bool         // has announced its departure, after it stopped
	// believes is until when, by its clock, it takes itself for a member, by the
	// answers that it has used.
	believes float64
	// renewal is its last one, and answered whether that was; it hears of it, or gives
	// it up, when it sends the next.
	renewal  int
	answered bool
	extended bool // it was, and was told so
	sent     float64
	// heard is when the leasemgr last gave it an answer that it is a member.
	heard time.Duration
}

func (p *process) clock(now time.Duration) float64 { return float64(now) * p.rate }

// mayBelieve is until when it may take itself for a member: it is not known whether
// the answer to its last renewal has arrived.
func (p *process) mayBelieve(ttl time.Duration) float64 {
	if p.extended {
		return max(p.believes, p.sent+float64(ttl))
	}
	return p.believes
}

// request is a message on its way to the leasemgr; it stays there after it was
// delivered, for it may be doubled.
type request struct {
	kind string
	who  *process
	sent float64 // by the clock of who
	// renewal is its number among those of who.
	renewal int
	silence time.Duration
	cut     []lease.Member
}

type model struct {
	options   Options
	now       time.Duration
	core      *Core
	seed      byte
	processes []*process
	requests  []request
	// durable is the last decision that survives a crash, pending one that does not.
	durable, pending *Decision
	published        base.View
	// identity has whom each member ever was, admitted its reverse, out who is gone.
	identity map[lease.Member]*process
	admitted map[*process]lease.Member
	out      map[lease.Member]bool
}

var modelNames = []string{"a", "b", "c"}

func newModel() *model {
	m := &model{now: time.Minute, durable: &Decision{}, identity: map[lease.Member]*process{}, admitted: map[*process]lease.Member{}, out: map[lease.Member]bool{}}
	m.options = Options{Drift: 0.1, Margin: time.Millisecond} // so that the margin does not hide the drift
	m.options.EnsureDefaults()
	core, err := New(m.options, Record{}, 0, m.now)
	if err != nil {
		panic(err)
	}
	m.core = core
	return m
}

func (m *model) instanceOf(d *Decision, member Member) *process {
	nonce := d.Record.Workers[member.Name].Nonce
	for _, p := range m.processes {
		if p.Nonce == nonce {
			return p
		}
	}
	return nil
}

// decided checks a decision against what has been durable before.
func (m *model) decided(t *rapid.T, d *Decision) {
	if d.View != max(m.durable.View, m.core.floor)+1 {
		t.Fatalf("view %d is decided after view %d", d.View, m.durable.View)
	}
	names, numbers := map[string]bool{}, map[lease.Worker]bool{}
	for _, member := range d.Members {
		if names[member.Name] || numbers[member.Worker] {
			t.Fatalf("view %d has twice %+v", d.View, member)
		}
		names[member.Name], numbers[member.Worker] = true, true
		if m.out[member.Member] {
			t.Fatalf("view %d brings back %+v", d.View, member)
		}
		p := m.instanceOf(d, member)
		if was := m.identity[member.Member]; was != nil && was != p {
			t.Fatalf("view %d: %+v is another process than before", d.View, member)
		}
		if before, again := m.admitted[p]; again && before != member.Member {
			t.Fatalf("view %d: the instance that was %v is now %v", d.View, before, member.Member)
		}
	}
	if _, err := lease.NewMembers(d.View, leaseMembers(d)); err != nil {
		t.Fatal(err)
	}
	for _, gone := range m.missing(d) {
		p := m.identity[gone]
		if age := m.now - p.heard; !p.left && age <= m.options.Timeout() {
			t.Fatalf("view %d is without %v, which was renewed %v ago", d.View, gone, age)
		}
	}
}

func leaseMembers(d *Decision) (all []lease.Member) {
	for _, member := range d.Members {
		all = append(all, member.Member)
	}
	return all
}

// missing are the members of the last durable view that are not in d.
func (m *model) missing(d *Decision) (gone []lease.Member) {
	in := map[lease.Member]bool{}
	for _, member := range d.Members {
		in[member.Member] = true
	}
	for _, member := range m.durable.Members {
		if !in[member.Member] {
			gone = append(gone, member.Member)
		}
	}
	return gone
}

// survives makes the pending decision durable.
func (m *model) survives() {
	for _, gone := range m.missing(m.pending) {
		m.out[gone] = true
	}
	for _, member := range m.pending.Members {
		p := m.instanceOf(m.pending, member)
		if m.identity[member.Member] == nil {
			p.heard = m.now
		}
		m.identity[member.Member], m.admitted[p] = p, member.Member
	}
	m.durable, m.pending = m.pending, nil
}

// publishes checks that whoever is out knows it: from now on others may take over.
func (m *model) publishes(t *rapid.T) {
	for member := range m.out {
		p := m.identity[member]
		if believes := p.mayBelieve(m.options.TTL); !p.left && p.clock(m.now) < believes {
			t.Fatalf("view %d is published without %v, which takes itself for a member for another %v of its time",
				m.durable.View, member, time.Duration(believes-p.clock(m.now)))
		}
	}
	m.published = m.durable.View
}

// answered notes an answer to a request of a member.
func (m *model) answered(t *rapid.T, r request, member lease.Member, extended bool) {
	if m.out[member] {
		t.Fatalf("%s of %v, which is out, was answered as a member's", r.kind, member)
	}
	switch {
	case r.kind == "join":
		r.who.member = member
		r.who.believes = max(r.who.believes, r.sent+float64(m.options.TTL))
	case r.renewal == r.who.renewal: // else it was given up
		r.who.answered, r.who.extended = true, r.who.extended || extended
	}
	if extended {
		r.who.heard = m.now
	}
}

func (m *model) deliver(t *rapid.T, r request) {
	switch r.kind {
	case "join":
		member, standing, err := m.core.Join(r.who.Instance, m.now)
		if err == nil && standing == In {
			if m.admitted[r.who] != member {
				t.Fatalf("the instance %v is told that it is %v", m.admitted[r.who], member)
			}
			m.answered(t, r, member, true)
		}
	case "renew":
		switch s, extended, _ := m.core.Renew(r.who.member, r.silence, r.cut, m.now); s {
		case In:
			m.answered(t, r, r.who.member, extended)
		case Out:
			if !m.out[r.who.member] {
				t.Fatalf("%v was told that it is out, and a restart may bring it back", r.who.member)
			}
		case Waiting:
		}
	case "leave":
		standing, err := m.core.Leave(r.who.member, m.now)
		if err != nil {
			t.Fatal(err)
		}
		if standing == Out && !m.out[r.who.member] {
			t.Fatalf("%v was told that it has left", r.who.member)
		}
	}
}

// step is one thing that the shell does.
func (m *model) step(t *rapid.T) {
	switch {
	case m.pending != nil:
		m.core.Durable()
		m.survives()
	case m.core.Unpublished():
		m.publishes(t)
		m.core.Published(m.now)
	default:
		d, err := m.core.Tick(m.now)
		if err != nil {
			t.Fatal(err)
		}
		if d != nil {
			m.decided(t, d)
			m.pending = d
		}
	}
}

func (m *model) crash(t *rapid.T) {
	if m.pending != nil && rapid.Bool().Draw(t, "written") {
		m.survives()
	}
	core, err := New(m.options, m.durable.Record, m.published, m.now)
	if err != nil {
		t.Fatal(err)
	}
	m.core, m.pending = core, nil
}

func (m *model) send(kind string, who *process) {
	m.requests = append(m.requests, request{kind: kind, who: who, sent: who.clock(m.now)})
}

// renew sends the next renewal. An answer to the one before is heard now or never.
func (m *model) renew(t *rapid.T, who *process) {
	silence := time.Duration(0)
	if who.renewal == 0 || who.answered && rapid.Bool().Draw(t, "heard") {
		who.believes = who.mayBelieve(m.options.TTL)
	} else {
		silence = rapid.SampledFrom([]time.Duration{1, m.options.TTL}).Draw(t, "silence")
	}
	who.renewal++
	who.answered, who.extended, who.sent = false, false, who.clock(m.now)
	r := request{kind: "renew", who: who, sent: who.sent, renewal: who.renewal, silence: silence}
	for _, other := range m.processes {
		if rapid.IntRange(0, 5).Draw(t, "cut") == 0 {
			r.cut = append(r.cut, other.member) // perhaps itself, nobody, or one that is gone
		}
	}
	m.requests = append(m.requests, r)
}

// act does something that one of the parts may do at any moment.
func (m *model) act(t *rapid.T) {
	what := rapid.SampledFrom(modelActions).Draw(t, "action")
	switch what {
	case "start":
		if m.seed >= RememberedNonces {
			return // beyond the bound an old Join may be admitted as new
		}
		m.seed++
		p := &process{Instance: instance(rapid.SampledFrom(modelNames).Draw(t, "name"), m.seed),
			rate: rapid.SampledFrom([]float64{1 / (1 + m.options.Drift), 1, 1 + m.options.Drift}).Draw(t, "rate")}
		m.processes = append(m.processes, p)
		m.send("join", p)
	case "deliver":
		if n := len(m.requests); n > 0 {
			m.deliver(t, m.requests[max(0, n-1-rapid.IntRange(0, 12).Draw(t, "request"))])
		}
	case "step":
		m.step(t)
	case "steps":
		m.quick(t)
	case "time":
		m.now += time.Duration(rapid.Int64Range(0, int64(m.options.TTL/5)).Draw(t, "elapsed"))
	case "edge": // just to where something is due
		if next, any := m.core.Next(); any && next > m.now {
			m.now = next
		}
		m.quick(t)
	case "silence": // without renewals, but with ticks
		for range rapid.IntRange(1, 8).Draw(t, "ticks") {
			m.now += m.options.TTL / 6
			m.step(t)
		}
	case "pause":
		m.now += time.Duration(rapid.Int64Range(0, int64(3*m.options.TTL)).Draw(t, "elapsed"))
	case "crash":
		m.crash(t)
	default:
		m.ofProcess(t, what)
	}
}

// ofProcess is what a process does.
func (m *model) ofProcess(t *rapid.T, what string) {
	if len(m.processes) == 0 {
		return
	}
	p := m.processes[rapid.IntRange(max(0, len(m.processes)-6), len(m.processes)-1).Draw(t, "process")]
	switch {
	case what == "join":
		m.send("join", p)
	case p.member.Worker == 0: // it does not know who it is
	case what == "renew":
		m.renew(t, p)
		if rapid.Bool().Draw(t, "at once") {
			m.deliver(t, m.requests[len(m.requests)-1])
		}
	case what == "leave":
		p.left = true
		m.send("leave", p)
	}
}

// modelActions are drawn from; some are more frequent than others.
var modelActions = []string{"start", "join", "renew", "renew", "renew", "leave", "deliver", "deliver", "deliver",
	"step", "steps", "steps", "time", "time", "edge", "edge", "silence", "pause", "crash"}

// quick lets the shell do all that it can at this moment.
func (m *model) quick(t *rapid.T) {
	for range 4 {
		m.step(t)
	}
}

func TestModel(t *testing.T) {
	var views, evicted, members int
	rapid.Check(t, func(t *rapid.T) {
		m := newModel()
		for range rapid.IntRange(200, 600).Draw(t, "actions") {
			m.act(t)
		}
		// Nobody renews any more: all are out after a time-out and a window. What
		// joined at the last moment is admitted a window later.
		for end := m.now + 2*(m.options.Timeout()+m.options.BatchWindow); m.now < end; m.now += m.options.TTL / 10 {
			m.quick(t)
		}
		if len(m.durable.Members) > 0 {
			t.Fatalf("dead members remain: %+v", m.durable.Members)
		}
		views += int(m.durable.View)
		members += len(m.identity)
		for member := range m.out {
			if !m.identity[member].left {
				evicted++
			}
		}
	})
	t.Logf("%d views, %d members, %d of them evicted", views, members, evicted)
	if views < 500 || evicted < 50 {
		t.Errorf("the model saw too little: %d views, %d members, %d evicted", views, members, evicted)
	}
}
