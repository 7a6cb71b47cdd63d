package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/command"
	"github.com/tenure-faas/tenure/rdma/machine"
	"github.com/tenure-faas/tenure/rdma/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func gids(texts ...string) (all []machine.GID) {
	for i, text := range texts {
		all = append(all, machine.GID{Index: i, Addr: netip.MustParseAddr(text), Type: "RoCE v2"})
	}
	return all
}

// plain is a Debian machine without RDMA devices.
func plain() machine.Facts {
	return machine.Facts{
		OS: "linux", Arch: "amd64", Kernel: "6.1.0-9-amd64", Distribution: machine.Distribution{ID: "debian", Name: "Debian GNU/Linux 12 (bookworm)"},
		NetAdmin: true, IPCLock: true, Memlock: machine.Memlock{Soft: 8 << 20, Hard: machine.Unlimited}, RDMA: machine.Yes,
		Modules: map[string]machine.ModuleState{"ib_core": machine.ModuleLoaded, "ib_uverbs": machine.ModuleLoaded, "rdma_rxe": machine.ModuleAvailable},
		Verbs:   machine.Verbs{Built: true, Library: machine.Yes},
		Links: []machine.Link{
			{Name: "lo", Up: true, Carrier: true, Loopback: true, MTU: 65536, Addresses: prefixes("127.0.0.1/8", "::1/128")},
			{Name: "eth0", Up: true, Carrier: true, Ethernet: true, MTU: 1500, Addresses: prefixes("10.77.0.1/24", "fe80::5054:ff:fe77:1/64")},
			{Name: "eth1", Up: true, Ethernet: true, MTU: 9000},
		},
	}
}

// rxe is plain with a software device, whose link has a small MTU.
func rxe() machine.Facts {
	f := plain()
	f.Modules["rdma_rxe"] = machine.ModuleLoaded
	f.Links[1].Device = "rxe0"
	f.Devices = []machine.Device{{
		Name: "rxe0", Driver: machine.DriverRXE, Atomics: machine.Yes, CharDevice: "/dev/infiniband/uverbs0", Library: machine.Yes,
		Ports: []machine.Port{{Number: 1, State: "ACTIVE", LinkLayer: "Ethernet", MTU: 1024, Netdev: "eth0", GIDs: gids("fe80::5054:ff:fe77:1", "::ffff:10.77.0.1")}},
	}}
	return f
}

// poor is a machine on which much is wrong, for a user without rights.
func poor() machine.Facts {
	f := rxe()
	f.UID, f.NetAdmin, f.IPCLock, f.Memlock = 1000, false, false, machine.Memlock{Soft: 64 << 10, Hard: 64 << 10}
	f.Unread = []string{"route netlink: permission denied"}
	f.Devices[0].OpenError, f.Devices[0].Denied, f.Devices[0].Library = "permission denied", true, machine.No
	f.Devices[0].Ports[0].State, f.Links[1].Up, f.Links[1].Carrier = "DOWN", false, false
	f.Devices = append(f.Devices, machine.Device{Name: "siw0", Atomics: machine.No, Library: machine.Yes, CharDevice: "/dev/infiniband/uverbs1"})
	return f
}

// TestText compares the report with golden files: go test -update writes them.
func TestText(t *testing.T) {
	darwin := machine.Facts{OS: "darwin", Arch: "arm64", Memfd: "only Linux has it", RDMA: machine.No, Links: []machine.Link{{Name: "lo0", Up: true, Carrier: true, Loopback: true, MTU: 16384, Addresses: prefixes("127.0.0.1/8")}}}
	none := plain()
	none.RDMA, none.Container, none.Verbs, none.Links = machine.No, "docker", machine.Verbs{Library: machine.No}, nil
	for name := range none.Modules {
		none.Modules[name] = machine.ModuleUnknown
	}
	many := rxe()
	for i := range 20 {
		many.Devices[0].Ports[0].GIDs = append(many.Devices[0].Ports[0].GIDs, machine.GID{Index: 2 + i, Addr: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)), Type: "RoCE v2"})
	}
	for _, test := range []struct {
		name   string
		facts  machine.Facts
		demand machine.Demand
		// opened is what opened; fault is why nothing did, where the verdict alone
		// would have let it.
		opened, fault string
	}{
		{"verbs", rxe(), machine.Demand{}, "verbs", ""},
		{"verbs_cluster_peer", rxe(), machine.Demand{Scope: machine.ScopeCluster, PeerMTU: 4096}, "verbs", ""},
		{"no_device", plain(), machine.Demand{Scope: machine.ScopeCluster}, "tcp", ""},
		{"no_rdma", none, machine.Demand{}, "shm", ""},
		{"poor", poor(), machine.Demand{}, "shm", ""},
		{"demanded", poor(), machine.Demand{Provider: "verbs"}, "", ""},
		{"nothing", none, machine.Demand{Scope: machine.ScopeCluster}, "", ""},
		{"darwin", darwin, machine.Demand{}, "tcp", ""},
		{"many_gids", many, machine.Demand{GID: "2001:db8::15"}, "verbs", ""},
		{"does_not_open", rxe(), machine.Demand{Provider: "verbs"}, "", "open verbs: device rxe0: device or resource busy"},
		{"next_best_opens", rxe(), machine.Demand{}, "shm", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Report{Demand: test.demand, Facts: test.facts, Verdict: machine.Judge(test.facts, test.demand), Opened: test.opened, Error: test.fault}
			if r.Verdict.Err != nil {
				r.Error = r.Verdict.Err.Error()
			}
			golden(t, test.name, r.Write)
		})
	}
}

// TestWireText has what is printed of packets.
func TestWireText(t *testing.T) {
	flow := wire.Flow{Direction: wire.Ingress, Source: netip.MustParseAddr("10.77.0.2"), Destination: netip.MustParseAddr("10.77.0.1"), QP: 17}
	flow.Opcodes[wire.CompareSwap] = wire.Packets{All: 3, Repeats: 1, Bytes: 180}
	w := Wire{Seconds: 10.04, Snapshot: wire.Snapshot{Interface: "eth0", Mode: wire.ModeTCX, Flows: []wire.Flow{flow}}, Blind: blind(rxe(), "eth0")}
	golden(t, "wire", w.Write)
	hardware := rxe()
	hardware.Devices[0].Name, hardware.Devices[0].Driver = "mlx5_0", "mlx5_core"
	for _, test := range []struct {
		facts  machine.Facts
		netdev string
		want   string
	}{
		{rxe(), "eth0", "two processes on rxe0 send each other no packets: only other machines show here"},
		{hardware, "eth0", "mlx5_0 is hardware, its packets bypass the kernel and do not show here; run: rdma statistic show link mlx5_0/1"},
		{rxe(), "eth1", "no RDMA device is on eth1: only packets of others that pass through it show here"},
	} {
		if got := blind(test.facts, test.netdev); !slices.Equal(got, []string{test.want}) {
			t.Errorf("%s: %q, want %q", test.netdev, got, test.want)
		}
	}
}

// golden compares what write writes with a file.
func golden(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := write(&got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the text is\n%s\nwant\n%s", &got, want)
	}
}

// examine runs the command in this process.
func examine(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var grammar struct {
		command.Globals
		Doctor Command `cmd:""`
	}
	program := cli.Program{Name: "tenure", Grammar: &grammar, Bind: func(streams cli.Streams) ([]any, error) {
		env, err := command.NewEnv(streams, grammar.Globals)
		return []any{env}, err
	}}
	var out, errs bytes.Buffer
	status = program.Run(t.Context(), append([]string{"doctor"}, args...), cli.Streams{Stdout: &out, Stderr: &errs})
	return out.String(), errs.String(), status
}

// TestThisMachine runs the command for real.
func TestThisMachine(t *testing.T) {
	facts := machine.Probe()
	best := machine.Judge(facts, machine.Demand{}).Provider
	usable := func(provider string) bool {
		return machine.Judge(facts, machine.Demand{Provider: provider}).Err == nil
	}
	for _, test := range []struct {
		name   string
		args   []string
		status int
		out    string // part of standard output
		err    string // all of standard error begins so; empty: there is none
	}{
		{"the best", nil, 0, best + " ", ""},
		{"tcp", []string{"--provider=tcp"}, 0, "tcp (address 127.0.0.1) was opened and closed again: workers can use it\n", ""},
		{"tcp at a forwarded address", []string{"--provider=tcp", "--scope=cluster", "--advertise=192.0.2.99"}, 0, "tcp (address 192.0.2.99) was opened and closed again", ""},
		{"shm for a cluster", []string{"--provider=shm", "--scope=cluster"}, 1, "shm was demanded and does not work here: nothing was opened\n", "tenure: shm was demanded and does not work here: workers are on several machines: shm reaches only those of one\n"},
		{"no such provider", []string{"--provider=sim"}, 2, "", "tenure: --provider must be one of"},
		{"no such scope", []string{"--scope=world"}, 2, "", "tenure: --scope must be one of"},
		{"no address", []string{"--advertise=here"}, 2, "", "tenure: --advertise \"here\" is not an IP address\n"},
		{"negative MTU", []string{"--peer-mtu=-1"}, 2, "", "tenure: a size is negative"},
		{"no time", []string{"--wire=lo", "--duration=0s"}, 2, "", "tenure: --duration is 0s, it must be more than 0\n"},
		{"no such interface", []string{"--provider=tcp", "--wire=nothere"}, 1, "tcp (address", "tenure: --wire nothere: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			stdout, stderr, status := examine(t, test.args...)
			if status != test.status || !strings.Contains(stdout, test.out) || !strings.HasPrefix(stderr, test.err) || test.err == "" && stderr != "" {
				t.Errorf("exit status %d, want %d\n%s\n%s", status, test.status, stdout, stderr)
			}
			if strings.Count(stderr, "\n") > 1 {
				t.Errorf("more than one line on standard error: %s", stderr)
			}
		})
	}
	if !usable("verbs") {
		stdout, stderr, status := examine(t, "--provider=verbs")
		want := "tenure: verbs was demanded and does not work here: "
		if status != 1 || !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") != 1 || !strings.Contains(stdout, "nothing was opened") {
			t.Errorf("verbs on demand: exit status %d\n%s\n%s", status, stdout, stderr)
		}
	}
}

func TestJSON(t *testing.T) {
	stdout, stderr, status := examine(t, "--provider=tcp", "--output=json")
	var report struct {
		Facts struct {
			OS    string
			Links []struct{ Name string }
		}
		Verdict struct {
			Provider string
			Refused  []struct{ Provider, Why string }
		}
		Opened string
		Error  string
		Wire   *struct{}
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || status != 0 || stderr != "" {
		t.Fatalf("%v, exit status %d, %q", err, status, stderr)
	}
	if report.Facts.OS != runtime.GOOS || len(report.Facts.Links) == 0 || report.Verdict.Provider != "tcp" || len(report.Verdict.Refused) != 2 ||
		report.Opened != "tcp" || report.Error != "" || report.Wire != nil {
		t.Errorf("report %+v", report)
	}
	if stdout, _, status = examine(t, "--provider=shm", "--scope=cluster", "--output=json"); status != 1 || !strings.Contains(stdout, `"error": "shm was demanded and does not work here: `) {
		t.Errorf("exit status %d, %s", status, stdout)
	}
}

// TestWire counts on the loopback interface, where the machine allows it.
func TestWire(t *testing.T) {
	counter, err := wire.Attach("lo", wire.Options{})
	if err != nil {
		stdout, stderr, status := examine(t, "--provider=tcp", "--wire=lo", "--duration=1ms")
		if want := fmt.Sprintf("tenure: --wire lo: %v\n", err); status != 1 || stderr != want || !strings.Contains(stdout, "tcp (address") {
			t.Errorf("exit status %d, %q, want %q\n%s", status, stderr, want, stdout)
		}
		return
	}
	if err := counter.Close(); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := examine(t, "--provider=tcp", "--wire=lo", "--duration=20ms")
	for _, want := range []string{"\nPackets, in 0.", "\n  RoCEv2 on lo by ", "\n  verbs in: ", "\n  note: no RDMA device is on lo: "} {
		if status != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("exit status %d, %q, no %q in\n%s", status, stderr, want, stdout)
		}
	}
	stdout, stderr, status = examine(t, "--provider=tcp", "--wire=lo", "--duration=1ms", "--output=json")
	if status != 0 || !json.Valid([]byte(stdout)) || !strings.Contains(stdout, `"wire": {`) || stderr != "" {
		t.Errorf("exit status %d, %q\n%s", status, stderr, stdout)
	}
}

// TestOpenErrors has one line for several faults.
func TestOpenErrors(t *testing.T) {
	r := Report{Verdict: machine.Verdict{Err: errors.Join(errors.New("one thing"), errors.New("another"))}}
	err := r.open(t.Context(), slog.New(slog.DiscardHandler))
	if err == nil || err.Error() != "one thing; another" || r.Error != err.Error() || r.Opened != "" {
		t.Errorf("error %v, report %+v", err, r)
	}
}
