package machine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenure-faas/tenure/rdma"
)

// named is a provider of which only the name is needed.
type named struct {
	rdma.Provider
	name string
}

// Name implements rdma.Provider.
func (n named) Name() string { return n.name }

func TestOpen(t *testing.T) {
	for _, test := range []struct {
		name   string
		demand Demand
		broken map[string]error
		opened string // the provider, or the error
		log    string // parts of the lines, one each
	}{
		{"the first works", Demand{}, nil, "verbs", ""},
		{"the first does not", Demand{}, map[string]error{"verbs": errors.New("device is busy")}, "shm",
			`level=WARN msg="rdma: verbs cannot be opened, shm is used instead" error="device is busy"`},
		{"only the last does", Demand{}, map[string]error{"verbs": errors.New("busy"), "shm": errors.New("full")}, "tcp",
			"verbs cannot be opened, shm is used instead|shm cannot be opened, tcp is used instead"},
		{"none does", Demand{}, map[string]error{"verbs": errors.New("busy"), "shm": errors.New("full"), "tcp": errors.New("port taken")},
			"open verbs: busy\nopen shm: full\nopen tcp: port taken", "shm is used instead|tcp is used instead"},
		{"demanded and broken", Demand{Provider: "verbs"}, map[string]error{"verbs": errors.New("device is busy")}, "open verbs: device is busy", ""},
		{"refused", Demand{Provider: "shm", Scope: ScopeCluster}, nil, "shm was demanded and does not work here: workers are on several machines: shm reaches only those of one", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			open := func(c Choice, _ *slog.Logger) (rdma.Provider, error) {
				return named{name: c.Provider}, test.broken[c.Provider]
			}
			p, err := openFirst(t.Context(), Judge(good(), test.demand), slog.New(slog.NewTextHandler(&log, nil)), open)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = p.Name()
			}
			if got != test.opened {
				t.Errorf("opened %q, want %q", got, test.opened)
			}
			want := strings.FieldsFunc(test.log, func(r rune) bool { return r == '|' })
			lines := slices.Collect(strings.Lines(log.String()))
			if len(lines) != len(want) {
				t.Fatalf("log %q, want %q", lines, want)
			}
			for i := range want {
				if !strings.Contains(lines[i], want[i]) {
					t.Errorf("log %q, want %q", lines[i], want[i])
				}
			}
		})
	}
}

func TestOpenCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	open := func(Choice, *slog.Logger) (rdma.Provider, error) {
		cancel()
		return nil, errors.New("slow")
	}
	if _, err := openFirst(ctx, Judge(good(), Demand{}), slog.New(slog.DiscardHandler), open); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "open verbs: slow") {
		t.Errorf("error %v", err)
	}
}

// TestChooseRXE makes a software device, or says why not.
func TestChooseRXE(t *testing.T) {
	cluster := Demand{Scope: ScopeCluster, RXE: RXECreate}
	for _, test := range []struct {
		name   string
		demand Demand
		base   files // nil is baseFiles
		before files // beside the base
		added  files // by the kernel, when it is asked
		answer error
		change func(*system)
		asked  string // what for; empty for not at all
		chosen string
		line   string // a finding
	}{
		{name: "made", demand: cluster, added: rxeFiles("rxe0", "eth0", "4: ACTIVE"), asked: "rxe0 on eth0", chosen: "verbs",
			line: "rxe0 was made on eth0: it stays until it is removed or the machine starts anew; to remove it, run: rdma link delete rxe0"},
		{name: "not allowed to", demand: Demand{Scope: ScopeCluster}, chosen: "tcp",
			line: "no RDMA device: there is no RDMA adapter, and no software device (rxe) was made; run: modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0"},
		{name: "not needed", demand: cluster, before: rxeFiles("rxe0", "eth0", "4: ACTIVE"), chosen: "verbs"},
		{name: "shm is demanded", demand: Demand{Provider: "shm", RXE: RXECreate}, chosen: "shm"},
		{name: "no RDMA in the kernel", demand: cluster, base: without(baseFiles(), classRDMA), before: files{
			"sys/class/net/": "", "lib/modules/6.1.0-9-amd64/modules.dep": "kernel/rdma_rxe.ko:\n",
		}, chosen: "tcp", line: "no RDMA in the kernel: 6.1.0-9-amd64 was built without it, so there can be no RDMA device; run: apt-get install linux-image-amd64 and boot that kernel"},
		{name: "RDMA not loaded", demand: cluster, base: without(baseFiles(), classRDMA), before: files{"sys/class/net/": ""},
			added: rxeFiles("rxe0", "eth0", "4: ACTIVE"), asked: "rxe0 on eth0", chosen: "verbs"},
		{name: "RDMA not loaded, and not allowed to", demand: Demand{Scope: ScopeCluster}, base: without(baseFiles(), classRDMA), before: files{"sys/class/net/": ""},
			chosen: "tcp", line: "RDMA is not loaded: kernel 6.1.0-9-amd64 has it as modules; run: modprobe ib_uverbs"},
		{name: "memlock too small", demand: cluster, before: files{"proc/self/status": "CapEff:\t0000000000001000\n"}, chosen: "tcp",
			line: "memlock is 8 MiB: verbs must lock 64 MiB of memory or more; run: ulimit -l 65536"},
		{name: "memlock enough", demand: Demand{Scope: ScopeCluster, RXE: RXECreate, MinRegionBytes: 8 << 20}, before: files{"proc/self/status": "CapEff:\t0000000000001000\n"},
			added: rxeFiles("rxe0", "eth0", "4: ACTIVE"), asked: "rxe0 on eth0", chosen: "verbs"},
		{name: "no permission", demand: cluster, answer: syscall.EPERM, asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: it needs the capability CAP_NET_ADMIN; as root, run: tenure doctor --rxe create"},
		{name: "module not loaded", demand: cluster, answer: syscall.EINVAL, asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: the module rdma_rxe is not loaded; run: modprobe rdma_rxe"},
		{name: "no module", demand: cluster, before: files{"lib/modules/6.1.0-9-amd64/modules.dep": "kernel/ib_core.ko:\n"}, answer: syscall.ENOENT, asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: the kernel has no module rdma_rxe; run: apt-get install linux-image-amd64 and boot that kernel"},
		{name: "lost its RDMA meanwhile", demand: cluster, answer: syscall.EPROTONOSUPPORT, asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: the kernel has no RDMA; run: apt-get install linux-image-amd64 and boot that kernel"},
		{name: "made by somebody else", demand: cluster, answer: syscall.EEXIST, asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: there is one already; run: rdma link show"},
		{name: "any other answer", demand: cluster, answer: syscall.ENOMEM, asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: cannot allocate memory"},
		{name: "does not come up", demand: cluster, added: rxeFiles("rxe0", "eth0", "1: DOWN"), asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: it was made, but is DOWN after 5s; run: rdma link show rxe0/1"},
		{name: "gets no GID", demand: cluster, added: without(rxeFiles("rxe0", "eth0", "4: ACTIVE"), "/gids/1"), asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: it was made, but is ACTIVE without a GID after 5s; run: rdma link show rxe0/1"},
		{name: "never appears", demand: cluster, added: files{"x": ""}, asked: "rxe0 on eth0", chosen: "tcp",
			line: "no software device (rxe) could be made on eth0: it was made, but is not there after 5s; run: rdma link show rxe0/1"},
		{name: "beside one without atomics", demand: cluster, before: files{
			"sys/class/infiniband/rxe0/node_type": "4: RNIC\n", "sys/class/infiniband/rxe0/ports/1/gids/0": "fe80::1", "sys/class/infiniband/rxe0/ports/1/gid_attrs/types/0": "RoCE v2",
			"sys/class/infiniband/rxe0/ports/1/gid_attrs/ndevs/0": "eth0",
		}, added: rxeFiles("rxe1", "eth0", "4: ACTIVE"), change: func(s *system) {
			s.verbs = func() ([]verbsDevice, error) {
				return []verbsDevice{{name: "rxe0"}, {name: "rxe1", atomics: true, ports: device("rxe1", "eth0").Ports}}, nil
			}
		}, asked: "rxe1 on eth0", chosen: "verbs",
			line: "rxe1 was made on eth0: it stays until it is removed or the machine starts anew; to remove it, run: rdma link delete rxe1"},
		{name: "no interface is fit", demand: cluster, change: func(s *system) {
			s.links = func() ([]Link, error) {
				return []Link{{Name: "eth0", Ethernet: true, Up: true, Addresses: prefixes("10.0.0.1/8")}}, nil
			}
		}, chosen: "error", line: "no software device (rxe) could be made: no interface is up, carries Ethernet, has an address that other machines can reach, and has no RDMA device; run: ip addr add ADDRESS/24 dev INTERFACE && ip link set dev INTERFACE up"},
	} {
		t.Run(test.name, func(t *testing.T) {
			base := test.base
			if base == nil {
				base = baseFiles()
			}
			s := fake(t, base, test.before)
			if test.change != nil {
				test.change(s)
			}
			asked := ""
			s.addRXE = func(name, netdev string) error {
				asked = name + " on " + netdev
				test.added.write(t, s.root)
				return test.answer
			}
			var v Verdict
			synctest.Test(t, func(t *testing.T) { _, v = choose(t.Context(), s, test.demand) })
			if asked != test.asked {
				t.Errorf("asked for %q, want %q", asked, test.asked)
			}
			chosen := "error"
			if len(v.Choices) > 0 {
				chosen = v.Choices[0].Provider
			}
			if chosen != test.chosen {
				t.Errorf("chosen %q, want %q: %v", chosen, test.chosen, v.Findings)
			}
			if test.line != "" && !slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.String() == test.line }) {
				t.Errorf("findings %q, want %q", v.Findings, test.line)
			}
		})
	}
}

func without(f files, part string) files {
	f = maps.Clone(f)
	maps.DeleteFunc(f, func(path, _ string) bool { return strings.Contains(path, part) })
	return f
}

// TestChooseRXEComesUpLate waits for a device that is DOWN at first.
func TestChooseRXEComesUpLate(t *testing.T) {
	s := fake(t, baseFiles())
	s.addRXE = func(string, string) error { rxeFiles("rxe0", "eth0", "1: DOWN").write(t, s.root); return nil }
	looks, verbs := 0, s.verbs
	synctest.Test(t, func(t *testing.T) {
		path := s.path("sys/class/infiniband/rxe0/ports/1/state")
		s.verbs = func() ([]verbsDevice, error) { looks++; return verbs() }
		up := make(chan error, 1)
		timer := time.AfterFunc(3*rxeInterval/2, func() { up <- os.WriteFile(path, []byte("4: ACTIVE\n"), 0o600) })
		defer timer.Stop()
		f, v := choose(t.Context(), s, Demand{RXE: RXECreate})
		if err := <-up; err != nil {
			t.Error(err)
		}
		if f.Created == nil || f.Created.Error != "" || v.Choices[0].Provider != ProviderVerbs || looks != 2 {
			t.Errorf("created %+v, verdict %+v, %d looks", f.Created, v, looks)
		}
	})
}

// TestCreateRXECanceled does not wait longer than it is asked to.
func TestCreateRXECanceled(t *testing.T) {
	s := fake(t, baseFiles())
	ctx, cancel := context.WithCancel(t.Context())
	s.addRXE = func(string, string) error { cancel(); return nil }
	c := createRXE(ctx, s, probe(s), Demand{})
	if c.Error != "it was made, but is not there: context canceled" || c.Mend != "run: rdma link show rxe0/1" {
		t.Errorf("created %+v", c)
	}
}

// TestBestNetdev has who gets the software device.
func TestBestNetdev(t *testing.T) {
	link := func(name, kind string, addresses ...string) Link {
		return Link{Name: name, Kind: kind, Up: true, Carrier: true, Ethernet: true, Addresses: prefixes(addresses...)}
	}
	down := link("eth8", "", "10.8.0.1/24")
	down.Carrier = false
	tunnel := link("wg0", "", "10.9.0.1/24")
	tunnel.Ethernet = false
	links := []Link{
		{Name: "lo", Up: true, Carrier: true, Ethernet: true, Loopback: true, Addresses: prefixes("10.7.0.1/32")},
		down, tunnel, link("docker0", "bridge", "172.17.0.1/16"), link("eth0", "", "fe80::1/64"), link("eth1", "", "2001:db8::1/64"),
		link("eth2", "", "169.254.1.1/16", "10.2.0.1/24"), link("eth3", "", "10.3.0.1/24"),
		link("eth4", "", "10.4.0.1/24"), link("eth5", "", "10.5.0.1/24"),
	}
	for _, test := range []struct {
		drop, advertise, want string
	}{
		{"", "", "eth2"},
		{"eth2", "", "eth3"},
		{"eth2 eth3", "", "eth5"},
		{"eth2 eth3 eth5", "", "eth1"},
		{"eth1 eth2 eth3 eth5", "", "docker0"},
		{"docker0 eth1 eth2 eth3 eth5", "", ""},
		{"", "10.3.0.1", "eth3"},
		{"", "fe80::1", "eth0"},
		{"", "10.8.0.1", "eth2"}, // has no carrier
		{"", "10.4.0.1", "eth2"}, // has a device
		{"", "10.5.0.1", "eth5"}, // has a device without atomics
	} {
		lacking := device("siw0", "eth5")
		lacking.Atomics = No
		f := Facts{Devices: []Device{device("mlx5_0", "eth4"), lacking}}
		for _, l := range links {
			if !slices.Contains(strings.Fields(test.drop), l.Name) {
				f.Links = append(f.Links, l)
			}
		}
		var d Demand
		if test.advertise != "" {
			d.Advertise = prefixes(test.advertise + "/32")[0].Addr()
		}
		if l, _ := f.bestNetdev(d); l.Name != test.want {
			t.Errorf("without %q, advertising %q: %q, want %q", test.drop, test.advertise, l.Name, test.want)
		}
	}
}
