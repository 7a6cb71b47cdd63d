package wire

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/tenure-faas/tenure/rdma"
)

// Direction is which way a packet went through the interface.
type Direction uint8

const (
	// Ingress is from the network to this machine.
	Ingress Direction = iota
	// Egress is from this machine to the network.
	Egress
)

// String is "in" or "out".
func (d Direction) String() string {
	if d == Egress {
		return "out"
	}
	return "in"
}

// Packets counts the packets of one opcode in one flow.
type Packets struct {
	// All packets, repeats and dropped ones included.
	All uint64
	// Repeats are the request packets whose PSN was seen before.
	Repeats uint64
	// Bytes of the UDP datagrams of All, headers included.
	Bytes uint64
}

// Verbs counts completely sent requests by rdma.Opcode; index 0 is not used.
type Verbs [rdma.OpFAA + 1]uint64

// String lists all verbs.
func (v Verbs) String() string {
	var b strings.Builder
	for op := rdma.OpRead; op <= rdma.OpFAA; op++ {
		fmt.Fprintf(&b, "%v %d  ", op, v[op])
	}
	return strings.TrimRight(b.String(), " ")
}

// Flow is what goes one way to one queue pair: the requests of the peer of that
// queue pair, and the peer's responses to the requests of the queue pair.
type Flow struct {
	// Direction at the interface.
	Direction Direction
	// Source and Destination are the addresses of the sender and the receiver.
	Source, Destination netip.Addr
	// QP is the number of the receiver's queue pair.
	QP uint32
	// Opcodes are the counters of opcodes 0x00 to 0x1f; the last one is that of all others.
	Opcodes [opcodeSlots]Packets
	// Naks counts negative acknowledgements.
	Naks [syndromes]uint64
	// Dropped packets, see Options.Drop.
	Dropped uint64
}

// Packets returns the counters of an RC opcode.
func (f *Flow) Packets(o Opcode) Packets { return f.Opcodes[o.slot()] }

// Verbs counts the verbs of which the last request packet was sent, repeats
// apart.
func (f *Flow) Verbs() (v Verbs) {
	for o := range opcodes {
		if verb := opcodes[o].verb; verb != 0 {
			v[verb] += f.Opcodes[o].All - f.Opcodes[o].Repeats
		}
	}
	return v
}

// Repeats counts the repeated request packets.
func (f *Flow) Repeats() (n uint64) {
	for o := range f.Opcodes {
		n += f.Opcodes[o].Repeats
	}
	return n
}

// Acknowledgements counts the positive ones, each of which may stand for several
// requests. Responses to READ and atomics are not among them.
func (f *Flow) Acknowledgements() uint64 {
	n := f.Opcodes[Acknowledge].All
	for _, nak := range f.Naks {
		n -= nak
	}
	return n
}

// Snapshot is what a Counter has counted so far.
type Snapshot struct {
	// Interface is its name.
	Interface string
	// Mode is how the packets were seen.
	Mode Mode
	// Flows are sorted by direction, source, destination and queue pair.
	Flows []Flow
	// Malformed packets went to the port of RoCEv2 but are none.
	Malformed uint64
	// Untracked packets are of flows beyond Options.Flows, and nowhere else.
	Untracked uint64
}

// Verbs adds up those of all flows of one direction.
func (s *Snapshot) Verbs(d Direction) (sum Verbs) {
	for i := range s.Flows {
		if s.Flows[i].Direction != d {
			continue
		}
		for op, n := range s.Flows[i].Verbs() {
			sum[op] += n
		}
	}
	return sum
}

// sortFlows puts flows into the order of a Snapshot.
func sortFlows(flows []Flow) {
	slices.SortFunc(flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), a.Source.Compare(b.Source), a.Destination.Compare(b.Destination), cmp.Compare(a.QP, b.QP))
	})
}

// String is a table for people: a line per flow and opcode, then the verbs.
func (s *Snapshot) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "RoCEv2 on %s by %v\n", s.Interface, s.Mode)
	if len(s.Flows) == 0 {
		b.WriteString("no packets: an RNIC bypasses the kernel, and so do two processes on one rxe device\n")
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(s.Flows) > 0 {
		fmt.Fprintln(w, "DIR\tFROM\tTO\tQP\tPACKET\tPACKETS\tREPEATS\tBYTES")
	}
	for i := range s.Flows {
		s.Flows[i].print(w)
	}
	w.Flush() //nolint:errcheck // a strings.Builder takes everything
	for d := Ingress; d <= Egress; d++ {
		if d == Egress && !s.Mode.Egress() {
			b.WriteString("verbs out: not seen by this hook\n")
			continue
		}
		fmt.Fprintf(&b, "verbs %-4v %v\n", d.String()+":", s.Verbs(d))
	}
	if s.Malformed > 0 || s.Untracked > 0 {
		fmt.Fprintf(&b, "malformed %d, of more flows than there is room for %d\n", s.Malformed, s.Untracked)
	}
	return b.String()
}

// print writes the lines of a flow: opcodes, then complaints.
func (f *Flow) print(w *tabwriter.Writer) {
	name := fmt.Sprintf("%v\t%v\t%v\t%#x", f.Direction, f.Source, f.Destination, f.QP)
	for o, p := range f.Opcodes {
		if p.All > 0 {
			label := Opcode(o).String()
			if Opcode(o) == otherOpcode { // the slot, not the opcode of that number
				label = opcodes[o].name
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\n", name, label, p.All, p.Repeats, p.Bytes)
		}
	}
	for n, count := range f.Naks {
		if count > 0 {
			fmt.Fprintf(w, "%s\tNAK: %v\t%d\t\t\n", name, Syndrome(n), count)
		}
	}
	if f.Dropped > 0 {
		fmt.Fprintf(w, "%s\tdropped on demand\t%d\t\t\n", name, f.Dropped)
	}
}
