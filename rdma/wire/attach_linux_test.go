package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

// place is a network namespace that this thread can switch to.
type place struct{ fd int }

func (p place) enter(t *testing.T) {
	if err := unix.Setns(p.fd, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// newPlace makes a namespace and switches to it. The test keeps its thread to
// itself, which therefore ends with the test.
func newPlace(t *testing.T) place {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("network namespaces are not permitted here (needs CAP_SYS_ADMIN): %v", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return place{fd}
}

// cable is a pair of virtual Ethernet interfaces, each in a namespace of its
// own: node 1 has wire1 with nodeA, node 2 wire2 with nodeB.
type cable struct {
	nodes   [2]place
	sockets [2]*net.UDPConn // at the port of RoCEv2, connected to each other
}

func newCable(t *testing.T) *cable {
	c := &cable{}
	c.nodes[1] = newPlace(t)
	c.nodes[0] = newPlace(t)
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wire1", MTU: 1500}, PeerName: "wire2", PeerNamespace: netlink.NsFd(c.nodes[1].fd)}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Skipf("virtual Ethernet is not permitted or not in this kernel: %v", err)
	}
	for i, ip := range []net.IP{nodeA.AsSlice(), nodeB.AsSlice()} {
		c.nodes[i].enter(t)
		l, err := netlink.LinkByName(fmt.Sprintf("wire%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		address := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(24, 32)}}
		if err := errors.Join(netlink.AddrAdd(l, address), netlink.LinkSetUp(l)); err != nil {
			t.Fatal(err)
		}
	}
	ends := []*net.UDPAddr{{IP: nodeA.AsSlice(), Port: portRoCE}, {IP: nodeB.AsSlice(), Port: portRoCE}}
	for i := range c.sockets {
		c.nodes[i].enter(t)
		var err error
		if c.sockets[i], err = net.DialUDP("udp4", ends[i], ends[1-i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.sockets[i].Close() })
	}
	return c
}

// attach attaches a counter at node n, 1 or 2.
func (c *cable) attach(t *testing.T, n int, options Options) *Counter {
	c.nodes[n-1].enter(t)
	counter, err := Attach(fmt.Sprintf("wire%d", n), options)
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, rdma.ErrNotSupported):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.nodes[n-1].enter(t)
		if err := counter.Close(); err != nil {
			t.Error(err)
		}
	})
	return counter
}

// send sends a datagram from node n and waits until it arrives at the other,
// which is after all hooks.
func (c *cable) send(t *testing.T, n int, p testPacket) {
	c.post(t, n, p)
	c.receive(t, 3-n, p)
}

func payloadOf(p testPacket) []byte { return p.frame()[etherLen+ipv4Len+udpLen:] }

func (c *cable) post(t *testing.T, n int, p testPacket) {
	if _, err := c.sockets[n-1].Write(payloadOf(p)); err != nil {
		t.Fatal(err)
	}
}

func (c *cable) receive(t *testing.T, n int, want testPacket) {
	b := make([]byte, 8192)
	c.sockets[n-1].SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := c.sockets[n-1].Read(b)
	if err != nil {
		t.Fatalf("the datagram did not arrive: %v", err)
	}
	if string(b[:got]) != string(payloadOf(want)) {
		t.Fatalf("another datagram arrived: % x", b[:got])
	}
}

func read(t *testing.T, c *Counter) Snapshot {
	s, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAttach: in every mode, real datagrams between two namespaces are counted at
// both ends, arrive unchanged, and are no longer counted after Close.
func TestAttach(t *testing.T) {
	for _, mode := range []Mode{ModeAuto, ModeTCX, ModeTC, ModeXDPGeneric, ModeXDPNative} {
		t.Run(mode.String(), func(t *testing.T) {
			c := newCable(t)
			counter := c.attach(t, 2, Options{Mode: mode, PathMTU: 4096})
			if mode != ModeAuto && counter.Mode() != mode || counter.Mode() == ModeAuto {
				t.Fatalf("attached by %v", counter.Mode())
			}
			sent := []testPacket{
				packet(WriteFirst, 0xfffffe, func(p *testPacket) { p.payload = 1024 }),
				packet(WriteMiddle, 0xffffff, func(p *testPacket) { p.payload = 1024 }),
				packet(WriteMiddle, 0xffffff, func(p *testPacket) { p.payload = 1024 }),
				packet(WriteLastImm, 0, func(p *testPacket) { p.payload = 10 }),
				packet(ReadRequest, 1, func(p *testPacket) { p.readLength = 9000 }),
				packet(ReadRequest, 2, func(p *testPacket) { p.readLength = 4904 }), // its tail
				packet(CompareSwap, 4),
			}
			for _, p := range sent {
				c.send(t, 1, p)
			}
			c.send(t, 2, packet(Acknowledge, 4, func(p *testPacket) { p.source, p.destination, p.syndrome = nodeB, nodeA, 0x20 }))
			s := read(t, counter)
			if want := (Verbs{rdma.OpRead: 1, rdma.OpWriteImm: 1, rdma.OpCAS: 1}); s.Verbs(Ingress) != want {
				t.Errorf("got %v, want %v\n%v", s.Verbs(Ingress), want, &s)
			}
			in := s.Flows[0]
			if in.Direction != Ingress || in.Source != nodeA || in.Destination != nodeB || in.QP != 0x12 || in.Repeats() != 2 {
				t.Errorf("got %+v, want the flow to nodeB with 2 repeats", in)
			}
			switch {
			case mode.Egress() && (len(s.Flows) != 2 || s.Flows[1].Source != nodeB || s.Flows[1].Naks[NakReceiverNotReady] != 1):
				t.Errorf("outgoing packets: got %+v, want one RNR NAK", s.Flows[1:])
			case !counter.Mode().Egress() && len(s.Flows) != 1:
				t.Errorf("got %+v beside incoming packets", s.Flows[1:])
			}
			c.nodes[1].enter(t)
			if err := counter.Close(); err != nil {
				t.Fatal(err)
			}
			c.send(t, 1, packet(CompareSwap, 5))
			if _, err := counter.Read(); !errors.Is(err, rdma.ErrClosed) {
				t.Errorf("read after close: %v", err)
			}
			again := c.attach(t, 2, Options{Mode: mode})
			if again.options.PathMTU != 1024 {
				t.Errorf("path MTU %d on an interface of 1500 bytes, want 1024", again.options.PathMTU)
			}
			if s := read(t, again); len(s.Flows) != 0 {
				t.Errorf("a new counter starts at %+v", s)
			}
		})
	}
}

// TestAttachDrop: what is dropped does not arrive, the rest does, and closing
// the counter ends it.
func TestAttachDrop(t *testing.T) {
	for _, mode := range []Mode{ModeAuto, ModeXDPGeneric} {
		t.Run(mode.String(), func(t *testing.T) {
			c := newCable(t)
			counter := c.attach(t, 2, Options{Mode: mode, Drop: Drop{Opcode: AtomicAck, Every: 2}})
			for psn := range uint32(4) {
				c.post(t, 1, packet(AtomicAck, psn))
			}
			// The cable keeps the order: nothing may come between these.
			c.receive(t, 2, packet(AtomicAck, 0))
			c.receive(t, 2, packet(AtomicAck, 2))
			c.send(t, 1, packet(Acknowledge, 9))
			if f := read(t, counter).Flows[0]; f.Dropped != 2 || f.Packets(AtomicAck).All != 4 {
				t.Errorf("got %+v, want 2 of 4 dropped", f)
			}
			c.nodes[1].enter(t)
			if err := counter.Close(); err != nil {
				t.Fatal(err)
			}
			c.send(t, 1, packet(AtomicAck, 10))
			c.send(t, 1, packet(AtomicAck, 11))
		})
	}
}

// TestHeadersInPages: a packet of which only the Ethernet header is in the linear
// part of its socket buffer, as from a ring of a packet socket, is counted.
func TestHeadersInPages(t *testing.T) {
	for _, mode := range []Mode{ModeTCX, ModeTC} {
		t.Run(mode.String(), func(t *testing.T) {
			c := newCable(t)
			counter := c.attach(t, 1, Options{Mode: mode})
			iface, err := net.InterfaceByName("wire1")
			if err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			const size, dataAt, ready = 4096, 32, 1 // struct tpacket_hdr, TP_STATUS_SEND_REQUEST
			ring := &unix.TpacketReq{Block_size: size, Block_nr: 1, Frame_size: size, Frame_nr: 1}
			if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, ring); err != nil {
				t.Fatal(err)
			}
			slot, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Munmap(slot)
			for _, p := range []testPacket{packet(ReadRequest, 1), packet(WriteOnly, 2, func(p *testPacket) { p.payload = 1000 })} {
				n := copy(slot[dataAt:], p.frame())
				binary.NativeEndian.PutUint32(slot[8:], uint32(n))
				binary.NativeEndian.PutUint64(slot, ready)
				if err := unix.Sendto(fd, nil, 0, &unix.SockaddrLinklayer{Ifindex: iface.Index}); err != nil {
					t.Fatal(err)
				}
			}
			s := read(t, counter)
			if want := (Verbs{rdma.OpRead: 1, rdma.OpWrite: 1}); s.Verbs(Egress) != want {
				t.Errorf("got %v, want %v\n%v", s.Verbs(Egress), want, &s)
			}
		})
	}
}

// TestAttachTwice: a hook that can serve one only says that it is taken, and the
// first counter goes on.
func TestAttachTwice(t *testing.T) {
	for _, mode := range []Mode{ModeTC, ModeXDPGeneric} {
		t.Run(mode.String(), func(t *testing.T) {
			c := newCable(t)
			first := c.attach(t, 2, Options{Mode: mode})
			second, err := Attach("wire2", Options{Mode: mode})
			if !errors.Is(err, rdma.ErrInUse) {
				t.Errorf("got %v, want ErrInUse", err)
				second.Close()
			}
			c.send(t, 1, packet(CompareSwap, 5))
			if s := read(t, first); s.Verbs(Ingress)[rdma.OpCAS] != 1 {
				t.Errorf("the first counter counts no more: %+v", s)
			}
		})
	}
	t.Run(ModeTCX.String(), func(t *testing.T) {
		c := newCable(t)
		first, second := c.attach(t, 2, Options{Mode: ModeTCX}), c.attach(t, 2, Options{Mode: ModeTCX})
		c.send(t, 1, packet(CompareSwap, 5))
		for i, counter := range []*Counter{first, second} {
			if s := read(t, counter); s.Verbs(Ingress)[rdma.OpCAS] != 1 {
				t.Errorf("counter %d: %+v", i+1, s)
			}
		}
	})
}

// TestTCLeavesOthersAlone: closing removes the queueing discipline that we made,
// but not one that was there or that somebody uses meanwhile.
func TestTCLeavesOthersAlone(t *testing.T) {
	for _, c := range []struct {
		name           string
		before, during bool // there is a discipline before; somebody adds a filter
		left           bool
	}{{"ours", false, false, false}, {"there before", true, false, true}, {"used by others", false, true, true}} {
		t.Run(c.name, func(t *testing.T) {
			wires := newCable(t)
			wires.nodes[1].enter(t)
			l, err := netlink.LinkByName("wire2")
			if err != nil {
				t.Fatal(err)
			}
			if c.before {
				_, err := addClsact(l.Attrs().Index)
				if errors.Is(err, rdma.ErrNotSupported) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			counter := wires.attach(t, 2, Options{Mode: ModeTC})
			if c.during {
				foreign := &netlink.BpfFilter{
					FilterAttrs: netlink.FilterAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 9},
					Fd:          counter.loaded.programs[0].FD(), Name: "foreign", DirectAction: true,
				}
				if err := netlink.FilterAdd(foreign); err != nil {
					t.Fatal(err)
				}
			}
			if err := counter.Close(); err != nil {
				t.Fatal(err)
			}
			qdiscs, err := netlink.QdiscList(l)
			if err != nil {
				t.Fatal(err)
			}
			left := false
			for _, q := range qdiscs {
				left = left || q.Type() == "clsact"
			}
			filters, err := netlink.FilterList(l, netlink.HANDLE_MIN_INGRESS)
			if left != c.left || err != nil && c.left || (len(filters) > 0) != c.during {
				t.Errorf("clsact is left: %v, want %v; filters %v, %v", left, c.left, filters, err)
			}
		})
	}
}

// TestAttachRefused: each reason is one clear line of its kind.
func TestAttachRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
		want    error
		device  string
	}{
		{"no such interface", Options{}, rdma.ErrInvalid, "nowhere7"},
		{"path MTU", Options{PathMTU: 1000}, rdma.ErrInvalid, "lo"},
		{"flows", Options{Flows: maxFlows + 1}, rdma.ErrInvalid, "lo"},
		{"mode", Options{Mode: 77}, rdma.ErrInvalid, "lo"},
		{"drop of another transport", Options{Drop: Drop{Opcode: 0x64, Every: 1}}, rdma.ErrInvalid, "lo"},
		{"drop that would survive", Options{Mode: ModeTC, Drop: Drop{Opcode: AtomicAck, Every: 1}}, rdma.ErrInvalid, "lo"},
		{"native XDP without a driver for it", Options{Mode: ModeXDPNative}, rdma.ErrNotSupported, "lo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			counter, err := Attach(c.device, c.options)
			if err == nil {
				counter.Close()
			}
			if errors.Is(err, os.ErrPermission) {
				t.Skip(err)
			}
			if !errors.Is(err, c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v in one line", err, c.want)
			}
		})
	}
}

// TestNoPermission: a thread without capabilities is told what it lacks.
func TestNoPermission(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with its lack of rights
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := [2]unix.CapUserData{}
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Fatal(err)
	}
	counter, err := Attach("lo", Options{})
	if err == nil {
		counter.Close()
	}
	if errors.Is(err, rdma.ErrNotSupported) {
		t.Skip(err)
	}
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(fmt.Sprint(err), "CAP_BPF and CAP_NET_ADMIN") {
		t.Errorf("got %v, want ErrPermission with what is missing", err)
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct{ err, want error }{
		{syscall.ENOSYS, rdma.ErrNotSupported},
		{syscall.EPERM, os.ErrPermission},
		{syscall.EACCES, os.ErrPermission},
		{syscall.EIO, syscall.EIO},
	} {
		if err := explain(c.err); !errors.Is(err, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%v became %v, want %v", c.err, err, c.want)
		}
	}
}
