package doctor

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/tenure-faas/tenure/rdma/machine"
)

// page collects sections of aligned lines.
type page struct{ bytes.Buffer }

// section writes a title and rows below it, whose cells are aligned.
func (p *page) section(title string, rows ...[]string) {
	if p.Len() > 0 {
		p.WriteByte('\n')
	}
	fmt.Fprintln(p, title)
	var aligned bytes.Buffer
	w := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	w.Flush() //nolint:errcheck // a buffer takes everything
	for line := range strings.Lines(aligned.String()) {
		fmt.Fprintln(p, strings.TrimRight(line, " \n"))
	}
}

// Write writes the report as text.
func (r *Report) Write(w io.Writer) error {
	var p page
	p.section("This machine", r.machine()...)
	p.section("Network interfaces", r.links()...)
	p.section("RDMA devices", r.devices()...)
	if gids := r.gids(); len(gids) > 1 {
		p.section("GIDs, the addresses of RDMA devices", gids...)
	}
	p.section("Providers", r.providers()...)
	if len(r.Verdict.Findings) > 0 {
		p.section("What is missing or worth knowing, and what mends it", r.findings()...)
	}
	p.section("Result", r.result()...)
	_, err := w.Write(p.Bytes())
	return err
}

// Write writes what was seen as text.
func (w *Wire) Write(out io.Writer) error {
	_, err := fmt.Fprintf(out, "\nPackets, in %.1f s\n  %s\n", w.Seconds,
		strings.ReplaceAll(strings.TrimRight(w.Snapshot.String(), "\n"), "\n", "\n  "))
	for _, line := range w.Blind {
		if err == nil {
			_, err = fmt.Fprintf(out, "  note: %s\n", line)
		}
	}
	return err
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func (r *Report) machine() [][]string {
	f := &r.Facts
	system := f.OS + "/" + f.Arch
	for _, more := range []string{f.Kernel, f.Distribution.Name} {
		if more != "" {
			system += ", " + more
		}
	}
	rows := [][]string{{"system", system}}
	if f.OS != "linux" {
		return rows
	}
	if f.Container != "" {
		rows = append(rows, []string{"container", f.Container})
	}
	memlock := machine.Bytes(f.Memlock.Soft)
	switch {
	case f.IPCLock && f.Memlock.Soft != machine.Unlimited:
		memlock = "unlimited for this user (the limit of " + memlock + " does not apply)"
	case f.Memlock.Hard != f.Memlock.Soft:
		memlock += ", can be raised to " + machine.Bytes(f.Memlock.Hard)
	}
	library := map[machine.Answer]string{machine.Yes: "installed", machine.No: "not installed", machine.Unknown: "unknown"}[f.Verbs.Library]
	program := "cannot use it (built without -tags rdma)"
	if f.Verbs.Built {
		program = "can use it"
	}
	rows = append(rows,
		[]string{"user", fmt.Sprintf("%d; makes RDMA devices: %s (CAP_NET_ADMIN); locks any memory: %s (CAP_IPC_LOCK)", f.UID, yesNo(f.NetAdmin), yesNo(f.IPCLock))},
		[]string{"lockable memory", memlock},
		[]string{"shared memory", cmp.Or(f.Memfd, "yes")},
		[]string{"RDMA in the kernel", string(f.RDMA)},
		[]string{"kernel modules", modules(f.Modules)},
		[]string{"libibverbs", library + "; this program " + program},
	)
	for _, problem := range f.Unread {
		rows = append(rows, []string{"not found out", problem})
	}
	return rows
}

// modules says where the modules are, in the order of their names.
func modules(states map[string]machine.ModuleState) string {
	words := map[machine.ModuleState]string{
		machine.ModuleLoaded: "loaded", machine.ModuleAvailable: "on disk", machine.ModuleAbsent: "missing", machine.ModuleUnknown: "not loaded",
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(states)) {
		all = append(all, name+" "+words[states[name]])
	}
	return strings.Join(all, ", ")
}

func (r *Report) links() [][]string {
	rows := [][]string{{"NAME", "STATE", "MTU", "RDMA DEVICE", "ADDRESSES"}}
	for _, l := range r.Facts.Links {
		state := "down"
		switch {
		case l.Up && l.Carrier:
			state = "up"
		case l.Up:
			state = "no carrier"
		}
		var addresses []string
		for _, a := range l.Addresses {
			addresses = append(addresses, a.String())
		}
		rows = append(rows, []string{l.Name, state, fmt.Sprint(l.MTU), cmp.Or(l.Device, "-"), cmp.Or(strings.Join(addresses, " "), "-")})
	}
	if len(rows) == 1 {
		return [][]string{{"none"}}
	}
	return rows
}

func (r *Report) devices() [][]string {
	rows := [][]string{{"NAME", "PORT", "STATE", "INTERFACE", "RDMA MTU", "ATOMICS", "DRIVER", "OPENED AS"}}
	for _, d := range r.Facts.Devices {
		for _, p := range d.Ports {
			mtu := "-"
			if p.MTU > 0 {
				mtu = fmt.Sprint(p.MTU)
			}
			rows = append(rows, []string{d.Name, fmt.Sprint(p.Number), p.State, cmp.Or(p.Netdev, "-"), mtu, string(d.Atomics), cmp.Or(d.Driver, "-"), cmp.Or(d.CharDevice, "-")})
		}
		if len(d.Ports) == 0 {
			rows = append(rows, []string{d.Name, "-", "-", "-", "-", string(d.Atomics), cmp.Or(d.Driver, "-"), cmp.Or(d.CharDevice, "-")})
		}
	}
	if len(rows) == 1 {
		return [][]string{{"none"}}
	}
	return rows
}

// maxGIDs is how many GIDs of a port are shown, the chosen one apart.
const maxGIDs = 8

func (r *Report) gids() [][]string {
	rows := [][]string{{"DEVICE", "PORT", "INDEX", "TYPE", "ADDRESS"}}
	var chosen machine.Choice
	if len(r.Verdict.Choices) > 0 && r.Verdict.Choices[0].GID != nil {
		chosen = r.Verdict.Choices[0]
	}
	for _, d := range r.Facts.Devices {
		for _, p := range d.Ports {
			for i, g := range p.GIDs {
				address := g.Addr.Unmap().String()
				mine := chosen.Device == d.Name && chosen.Port == p.Number && *chosen.GID == g
				if mine {
					address += "  (chosen)"
				}
				if mine || i < maxGIDs {
					rows = append(rows, []string{d.Name, fmt.Sprint(p.Number), fmt.Sprint(g.Index), g.Type, address})
				}
			}
		}
	}
	return rows
}

// providers lists those that work before those that do not, which is their
// order of preference in both.
func (r *Report) providers() (rows [][]string) {
	for i, c := range r.Verdict.Choices {
		state := "works"
		if i == 0 {
			state = "chosen"
		}
		rows = append(rows, []string{c.Provider, state, c.Why})
	}
	for _, c := range r.Verdict.Refused {
		rows = append(rows, []string{c.Provider, "no", c.Why})
	}
	return rows
}

func (r *Report) findings() (rows [][]string) {
	for _, f := range r.Verdict.Findings {
		rows = append(rows, []string{string(f.Level), f.Provider, f.String()})
	}
	return rows
}

func (r *Report) result() [][]string {
	switch {
	case r.Verdict.Err != nil && r.Demand.Provider != "":
		return [][]string{{r.Demand.Provider + " was demanded and does not work here: nothing was opened"}}
	case r.Verdict.Err != nil:
		return [][]string{{"no provider works here: nothing was opened"}}
	case r.Error != "":
		return [][]string{{r.Error}}
	case r.Opened != r.Verdict.Choices[0].Provider:
		return [][]string{{r.Opened + " was opened and closed again, because what is better could not be opened"}}
	}
	c := r.Verdict.Choices[0]
	options := ""
	switch {
	case c.GID != nil:
		options = fmt.Sprintf(" (device %s, port %d, GID %v, %d bytes in a packet)", c.Device, c.Port, *c.GID, c.MTU)
	case c.Advertise.IsValid():
		options = fmt.Sprintf(" (address %v)", c.Advertise)
	}
	return [][]string{{c.Provider + options + " was opened and closed again: workers can use it"}}
}
