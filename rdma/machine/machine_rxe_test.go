//go:build linux && rdma

package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tenure-faas/tenure/rdma"
)

// This file shows bad machines on a real kernel with a real software device: on
// a pair of virtual interfaces of its own, so that the machine keeps its
// network. For each, the command that the finding gives is then run as it
// stands, and the finding must be gone. It needs root and the modules rdma_rxe
// and veth; make test-rxe has both.

const (
	rxeLink   = "tnr0"
	otherLink = "tnr1"
	rxeAddr   = "10.99.0.1"
)

// stand is the machine under test.
type stand struct {
	device string
	// local is the GID that only machines on the same link reach.
	local GID
}

// lacks skips the test for want of what it needs, or fails it where the
// environment variable TENURE_RDMA_REQUIRED says that all of it is there.
func lacks(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("TENURE_RDMA_REQUIRED") != "" {
		t.Fatalf("TENURE_RDMA_REQUIRED is set: %s", what)
	}
	t.Skip(what)
}

// newStand makes interfaces and a device, and removes them at the end.
func newStand(t *testing.T) *stand {
	if os.Geteuid() != 0 {
		lacks(t, "it needs root, to make network interfaces and a device")
	}
	if f := Probe(); f.RDMA != Yes || f.Modules[moduleRXE] != ModuleLoaded && f.Modules[moduleRXE] != ModuleAvailable {
		lacks(t, fmt.Sprintf("%v: RDMA is not loaded, or the kernel has no rdma_rxe: %+v", rdma.ErrNotSupported, f.Modules))
	}
	command(t, "ip link add "+rxeLink+" type veth peer name "+otherLink)
	t.Cleanup(func() { command(t, "ip link delete "+rxeLink) })
	command(t, "ip link set dev "+otherLink+" up")
	command(t, "ip link set dev "+rxeLink+" up")
	command(t, "ip addr add "+rxeAddr+"/24 dev "+rxeLink)
	created := CreateRXE(t.Context(), Probe(), Demand{Advertise: netip.MustParseAddr(rxeAddr)})
	if created.Error != "" || created.Netdev != rxeLink {
		t.Fatalf("created %+v", created)
	}
	t.Cleanup(func() {
		if err := netlink.RdmaLinkDel(created.Device); err != nil {
			t.Error(err)
		}
	})
	b := &stand{device: created.Device}
	await(t, Demand{Device: b.device}, "ready with a link-local GID", func(v Verdict) bool {
		if v.Provider != ProviderVerbs {
			return false
		}
		for g := range host().gids(b.device, 1) {
			if g.Addr.IsLinkLocalUnicast() {
				b.local = g
				return true
			}
		}
		return false
	})
	return b
}

// command runs a command line without a shell: busybox's would take its own ip.
// It also runs in cleanups.
func command(t *testing.T, line string) {
	t.Helper()
	for part := range strings.SplitSeq(line, " && ") {
		words := strings.Fields(part)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*rxePatience)
		out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s: %v: %s", part, err, out)
		}
	}
}

// await judges the demand until the verdict is as it must be: the kernel changes
// ports and GIDs in the background.
func await(t *testing.T, d Demand, what string, ok func(Verdict) bool) Verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*rxePatience)
	defer cancel()
	tick := time.NewTicker(rxeInterval)
	defer tick.Stop()
	for {
		v := Judge(Probe(), d)
		if ok(v) {
			return v
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not %s: %+v", what, v)
		case <-tick.C:
		}
	}
}

// has says whether a line is among the findings.
func has(v Verdict, line string) bool {
	return slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.String() == line })
}

// mending returns the command of a line.
func mending(t *testing.T, line string) string {
	t.Helper()
	_, text, ok := strings.Cut(line, "run: ")
	text, _, _ = strings.Cut(text, " (")
	if !ok {
		t.Fatalf("no command in %q", line)
	}
	return strings.ReplaceAll(text, "sudo ", "")
}

// open opens the chosen provider and closes it again.
func open(t *testing.T, v Verdict) error {
	t.Helper()
	p, err := Open(t.Context(), v, nil)
	if err != nil {
		return err
	}
	if p.Name() != v.Provider {
		t.Errorf("%s was opened, and %s is chosen", p.Name(), v.Provider)
	}
	return p.Close()
}

func TestRealMachine(t *testing.T) {
	b := newStand(t)
	t.Run("it works", b.works)
	for _, test := range []struct {
		name  string
		spoil string
		scope Scope
		// line is the finding, with DEV for the name of the device.
		line string
		// mend is what mends it where the finding cannot know: the rest of the
		// time its own command must.
		mend string
		next string // the provider that is chosen then
	}{
		{"MTU 1500", "ip link set dev tnr0 mtu 1500", ScopeHost,
			"tnr0 has MTU 1500: packets of DEV carry 1024 bytes, where 4096 are possible; run: ip link set dev tnr0 mtu 4200 (on every machine and switch)", "", "verbs"},
		{"link down", "ip link set dev tnr0 down", ScopeHost,
			"DEV port 1 is DOWN: the interface tnr0 is down; run: ip link set dev tnr0 up", "", "shm"},
		{"no carrier", "ip link set dev tnr1 down", ScopeCluster,
			"DEV port 1 is DOWN: the interface tnr0 has no carrier; connect its cable, then run: ip link show dev tnr0", "ip link set dev tnr1 up", "tcp"},
		{"no routable GID", "ip addr flush dev tnr0 scope global", ScopeHost,
			"DEV port 1: other machines reach none of its GIDs: LOCAL; give the interface an address, run: ip addr add ADDRESS/24 dev tnr0", "ip addr add 10.99.0.1/24 dev tnr0", "shm"},
	} {
		t.Run(test.name, func(t *testing.T) {
			command(t, test.spoil)
			demand := Demand{Device: b.device, Scope: test.scope}
			line := strings.NewReplacer("DEV", b.device, "LOCAL", b.local.String()).Replace(test.line)
			v := await(t, demand, line, func(v Verdict) bool { return has(v, line) })
			t.Log(line)
			if v.Provider != test.next {
				t.Errorf("%s is chosen, want %s", v.Provider, test.next)
			}
			if err := open(t, v); err != nil {
				t.Errorf("open %s: %v", v.Provider, err)
			}
			demand.Provider = ProviderVerbs
			if v := Judge(Probe(), demand); test.next != ProviderVerbs && (v.Err == nil || v.Err.Error() != "verbs was demanded and does not work here: "+line) {
				t.Errorf("verbs on demand: %v", v.Err)
			}
			mend := test.mend
			if mend == "" {
				mend = mending(t, line)
			}
			command(t, mend)
			v = await(t, demand, "mended by "+mend, func(v Verdict) bool { return v.Provider == ProviderVerbs && !has(v, line) })
			if err := open(t, v); err != nil {
				t.Errorf("after %s: %v", mend, err)
			}
		})
	}
	t.Run("wrong GID", b.wrongGID)
	t.Run("no permission", b.permission)
	t.Run("memlock too small", b.memlock)
	t.Run("no atomics", b.atomics)
	t.Run("rxe without rights", func(t *testing.T) {
		if got, want := child(t, "create", 0), "it needs the capability CAP_NET_ADMIN|as root, run: tenure doctor --rxe create"; got != want {
			t.Errorf("created: %q, want %q", got, want)
		}
	})
}

// wrongGID demands addresses that the device has not, or should not be asked for.
func (b *stand) wrongGID(t *testing.T) {
	f := Probe()
	d := f.Devices[slices.IndexFunc(f.Devices, func(d Device) bool { return d.Name == b.device })]
	line := fmt.Sprintf("%s port 1: it has no GID 10.99.0.77, only %s; run: tenure doctor --gid %s", b.device, list(d.Ports[0].GIDs), rxeAddr)
	v := Judge(f, Demand{Device: b.device, GID: "10.99.0.77"})
	if !has(v, line) || v.Provider != ProviderSHM {
		t.Errorf("findings %q, want %q", v.Findings, line)
	}
	t.Log(line)
	for _, gid := range []string{rxeAddr, b.local.Addr.String()} {
		if v = Judge(f, Demand{Device: b.device, GID: gid}); v.Provider != ProviderVerbs || v.Choices[0].GID.Addr.Unmap().String() != gid {
			t.Fatalf("GID %s on demand: %+v", gid, v)
		}
		if err := open(t, v); err != nil {
			t.Errorf("GID %s on demand: %v", gid, err)
		}
	}
}

// works has what must be known of a device that works.
func (b *stand) works(t *testing.T) {
	f := Probe()
	at := slices.IndexFunc(f.Devices, func(d Device) bool { return d.Name == b.device })
	if at < 0 {
		t.Fatalf("no %s in %+v", b.device, f.Devices)
	}
	d := f.Devices[at]
	if d.Driver != DriverRXE || d.Atomics != Yes || d.Library != Yes || d.CharDevice == "" || d.OpenError != "" || len(d.Ports) != 1 ||
		d.Ports[0].State != stateActive || d.Ports[0].Netdev != rxeLink || d.Ports[0].MTU != 1024 {
		t.Errorf("device %+v", d)
	}
	if l, ok := f.link(rxeLink); !ok || l.Device != b.device || l.Kind != "veth" || !l.Up || !l.Carrier {
		t.Errorf("link %+v", l)
	}
	v := Judge(f, Demand{Device: b.device})
	if v.Provider != ProviderVerbs || v.Choices[0].GID.Addr.Unmap() != netip.MustParseAddr(rxeAddr) || v.Choices[0].MTU != 1024 {
		t.Errorf("verdict %+v", v)
	}
	if err := open(t, v); err != nil {
		t.Error(err)
	}
}

// permission takes the rights away that others have.
func (b *stand) permission(t *testing.T) {
	f := Probe()
	at := slices.IndexFunc(f.Devices, func(d Device) bool { return d.Name == b.device })
	path := f.Devices[at].CharDevice
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Chmod(path, before.Mode().Perm()); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s: user 65534 has no permission for %s; run: sudo chmod a+rw %s", b.device, path, path)
	got := child(t, "judge "+b.device, 1<<30)
	if chosen, line, _ := strings.Cut(got, "|"); chosen != ProviderSHM || line != want {
		t.Errorf("nobody gets %q, want %q", got, want)
	}
	t.Log(got)
	command(t, mending(t, want))
	if got := child(t, "judge "+b.device, 1<<30); !strings.HasPrefix(got, ProviderVerbs) {
		t.Errorf("after %s nobody gets %q", mending(t, want), got)
	}
}

// memlock runs as a user who may lock little memory: the verdict must be what
// the kernel does.
func (b *stand) memlock(t *testing.T) {
	f := Probe()
	at := slices.IndexFunc(f.Devices, func(d Device) bool { return d.Name == b.device })
	command(t, "chmod a+rw "+f.Devices[at].CharDevice)
	want := "memlock is 1 MiB: verbs must lock 64 MiB of memory or more; run: sudo prlimit --pid $$ --memlock=unlimited (for a service: LimitMEMLOCK=infinity)"
	if got := child(t, "judge "+b.device, 1<<20); got != ProviderSHM+"|"+want {
		t.Errorf("nobody gets %q, want %q", got, want)
	}
	t.Log(want)
	if got := child(t, "register "+b.device, 1<<20); !strings.Contains(got, "cannot allocate memory") {
		t.Errorf("nobody registers %d bytes: %q", DefaultRegionBytes, got)
	}
	if got := child(t, "register "+b.device, 128<<20); got != "registered" {
		t.Errorf("nobody registers with enough memlock: %q", got)
	}
}

// atomics makes a device without them, which takes the module siw.
func (b *stand) atomics(t *testing.T) {
	const name = "tnsiw"
	err := netlink.RdmaLinkAdd(name, "siw", otherLink)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skipf("%v: the kernel has no module siw: %v", rdma.ErrNotSupported, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netlink.RdmaLinkDel(name); err != nil {
			t.Error(err)
		}
	}()
	line := name + ": it has no atomics (CAS, FAA), which leases need"
	if v := await(t, Demand{Device: name}, line, func(v Verdict) bool { return has(v, line) }); v.Provider != ProviderSHM {
		t.Errorf("%s is chosen", v.Provider)
	}
}

// childVariable in the environment says what a child does.
const childVariable = "TENURE_MACHINE_CHILD"

// child runs TestChild as nobody, with this limit on locked memory, in bytes,
// and returns what it said.
func child(t *testing.T, what string, memlock uint64) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	said := filepath.Join(t.TempDir(), "said")
	file, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestChild$", "-test.count=1")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", childVariable, memlock, what))
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("child: %v: %s", err, out)
	}
	text, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestChild is the child.
func TestChild(t *testing.T) {
	var limit uint64
	var what, device string
	if n, _ := fmt.Sscan(os.Getenv(childVariable), &limit, &what, &device); n < 2 {
		t.Skip("this is what other tests start")
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	said := os.NewFile(3, "said")
	defer said.Close()
	f := Probe()
	demand := Demand{Device: device}
	switch what {
	case "judge":
		v := Judge(f, demand)
		fmt.Fprint(said, v.Provider)
		if len(v.Refused) > 0 {
			fmt.Fprintf(said, "|%v", v.Findings[0])
		}
	case "create":
		f.Devices = nil // so that an interface is free
		c := CreateRXE(t.Context(), f, demand)
		fmt.Fprintf(said, "%s|%s", c.Error, c.Mend)
	case "register":
		v := Judge(f, Demand{Device: device, Provider: ProviderVerbs, MinRegionBytes: 1})
		p, err := Open(t.Context(), v, slog.New(slog.NewTextHandler(new(bytes.Buffer), nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		region, err := p.Register(DefaultRegionBytes)
		if err != nil {
			fmt.Fprint(said, err)
			return
		}
		defer region.Close()
		fmt.Fprint(said, "registered")
	}
}
