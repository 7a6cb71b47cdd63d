package machine

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Scope says where the workers are that must reach each other.
type Scope string

// The scopes.
const (
	// ScopeHost: all workers are processes of this machine. It is the default.
	ScopeHost Scope = "host"
	// ScopeCluster: workers are on several machines.
	ScopeCluster Scope = "cluster"
)

// The providers that can be chosen.
const (
	ProviderVerbs = "verbs"
	ProviderSHM   = "shm"
	ProviderTCP   = "tcp"
)

// providers are in the order of preference.
var providers = [...]string{ProviderVerbs, ProviderSHM, ProviderTCP}

// RXECreate is the value of Demand.RXE that allows a software device to be made.
const RXECreate = "create"

// DefaultRegionBytes is what a worker registers at least: the lease words of its
// slots and its rings.
const DefaultRegionBytes = 64 << 20

// Demand is what is wanted of a machine.
type Demand struct {
	// Provider is verbs, shm or tcp and then there is no other choice; "" is the
	// best that works.
	Provider string
	// Scope says where the peers are; "" is ScopeHost.
	Scope Scope
	// Device is the RDMA device to use; "" is the best.
	Device string
	// GID is the address to use, as its index or as an address in any form; "" is
	// the best.
	GID string
	// Advertise is the address at which peers reach this machine; the zero value
	// picks one.
	Advertise netip.Addr
	// Listen is where tcp waits for peers, host:port; "" is a free port of the
	// advertised address, or of all addresses if that one is forwarded here. A
	// wildcard host needs a port that is not 0.
	Listen string
	// MinRegionBytes is how much memory must be possible to register; 0 is
	// DefaultRegionBytes.
	MinRegionBytes int64
	// PeerMTU is the RDMA MTU of the peers, in bytes; 0 is not known.
	PeerMTU int
	// RXE is "create" to let Choose make a software device if there is no device
	// with atomics; "" leaves the machine as it is.
	RXE string
}

// EnsureDefaults replaces zero values by the documented defaults.
func (d *Demand) EnsureDefaults() {
	d.Scope = cmp.Or(d.Scope, ScopeHost)
	d.MinRegionBytes = cmp.Or(d.MinRegionBytes, DefaultRegionBytes)
}

// Validate says what is not a demand at all; all of it.
func (d *Demand) Validate() error {
	var faults []error
	if d.Provider != "" && !slices.Contains(providers[:], d.Provider) {
		faults = append(faults, fmt.Errorf("there is no provider %q: demand verbs, shm or tcp, or nothing for the best that works", d.Provider))
	}
	if d.Scope != "" && d.Scope != ScopeHost && d.Scope != ScopeCluster {
		faults = append(faults, fmt.Errorf("there is no scope %q: it is host or cluster", d.Scope))
	}
	if d.RXE != "" && d.RXE != RXECreate {
		faults = append(faults, fmt.Errorf("rxe %q is not understood: it is create or nothing", d.RXE))
	}
	if d.MinRegionBytes < 0 || d.PeerMTU < 0 {
		faults = append(faults, fmt.Errorf("a size is negative: %d bytes of region, MTU %d of the peer", d.MinRegionBytes, d.PeerMTU))
	}
	return errors.Join(faults...)
}

// Choice is a provider that works here, with what it is to be opened with.
type Choice struct {
	Provider string `json:"provider"`
	// Why says why it works.
	Why string `json:"why"`
	// Device, Port and GID are for verbs; MTU is the payload of its packets in
	// bytes, 0 if not known, and Netdev the interface below.
	Device string `json:"device,omitempty"`
	Port   int    `json:"port,omitempty"`
	GID    *GID   `json:"gid,omitempty"`
	MTU    int    `json:"mtu,omitempty"`
	Netdev string `json:"netdev,omitempty"`
	// Advertise is the address of this machine for peers, for tcp, and Listen
	// where it waits for them; "" is as in Demand.
	Advertise netip.Addr `json:"advertise,omitzero"`
	Listen    string     `json:"listen,omitempty"`
	// Forwarded says that no interface of this machine has Advertise.
	Forwarded bool `json:"forwarded,omitempty"`
}

// Refusal is a provider that does not work here.
type Refusal struct {
	Provider string `json:"provider"`
	// Why is the first of the findings.
	Why string `json:"why"`
}

// Verdict is what Judge says.
type Verdict struct {
	// Provider is the chosen one, that of the first of Choices; "" is none.
	Provider string `json:"provider"`
	// Choices are the providers that work, the chosen one first. A demanded
	// provider is the only one.
	Choices []Choice `json:"choices"`
	// Refused are the others.
	Refused []Refusal `json:"refused"`
	// Findings are what is missing or worth knowing, the worst first.
	Findings []Finding `json:"findings"`
	// Err is why nothing is chosen; nil if there is a choice. It is one line.
	Err error `json:"-"`
}

// Judge decides. It is a pure function of its arguments.
func Judge(f Facts, d Demand) Verdict {
	v := Verdict{Choices: []Choice{}, Refused: []Refusal{}, Findings: []Finding{}} // lists also in JSON
	if err := d.Validate(); err != nil {
		v.Err = errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
		return v
	}
	d.EnsureDefaults()
	for _, provider := range providers {
		var choice *Choice
		var found []Finding
		switch provider {
		case ProviderVerbs:
			choice, found = judgeVerbs(f, d)
		case ProviderSHM:
			choice, found = judgeSHM(f, d)
		case ProviderTCP:
			choice, found = judgeTCP(f, d)
		}
		for i := range found {
			found[i].Provider = provider
		}
		v.add(provider, choice, found, d)
	}
	slices.SortStableFunc(v.Findings, func(a, b Finding) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	if len(v.Choices) > 0 {
		v.Provider = v.Choices[0].Provider
	} else if v.Err == nil {
		var all []string
		for _, r := range v.Refused {
			all = append(all, r.Provider+": "+r.Why)
		}
		v.Err = fmt.Errorf("no provider works here: %s", strings.Join(all, " / "))
	}
	return v
}

// add enters what was found about a provider; without a choice, the first
// finding says why.
func (v *Verdict) add(provider string, choice *Choice, found []Finding, d Demand) {
	v.Findings = append(v.Findings, found...)
	demanded := d.Provider == provider
	switch {
	case choice == nil:
		v.Refused = append(v.Refused, Refusal{provider, found[0].what()})
		if demanded {
			v.Err = fmt.Errorf("%s was demanded and does not work here: %v", provider, found[0])
		}
	case d.Provider != "" && !demanded:
		v.Refused = append(v.Refused, Refusal{provider, "it works, but " + d.Provider + " was demanded"})
	default:
		v.Choices = append(v.Choices, *choice)
	}
}

// judgeSHM judges shared memory.
func judgeSHM(f Facts, d Demand) (*Choice, []Finding) {
	switch {
	case f.Memfd != "":
		return nil, []Finding{memfdFault(f)}
	case d.Scope != ScopeHost:
		return nil, []Finding{scopeNote()}
	}
	return &Choice{Provider: ProviderSHM, Why: "all workers are on this machine and can share memory"}, nil
}

// judgeTCP judges connections: they need an address, and nothing else.
func judgeTCP(f Facts, d Demand) (*Choice, []Finding) {
	c := &Choice{Provider: ProviderTCP, Advertise: d.Advertise.Unmap(), Listen: d.Listen}
	if d.Advertise.IsValid() {
		link, here := f.linkOf(d.Advertise)
		switch {
		case d.Scope == ScopeCluster && !routable(d.Advertise):
			return nil, []Finding{advertiseFault(f, d.Advertise)}
		case !here:
			c.Forwarded, c.Why = true, fmt.Sprintf("it works anywhere; peers are told %v", c.Advertise)
			return c, []Finding{advertiseWarning(d.Advertise)}
		}
		c.Why = fmt.Sprintf("it works anywhere; peers reach %v on %s", c.Advertise, link.Name)
		return c, nil
	}
	if d.Scope == ScopeHost {
		c.Advertise = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		c.Why = "it works anywhere; peers on this machine reach 127.0.0.1"
		return c, nil
	}
	link, addr, ok := f.outward()
	if !ok {
		return nil, []Finding{addressFault(f)}
	}
	c.Advertise, c.Why = addr, fmt.Sprintf("it works anywhere; peers reach %v on %s", addr, link.Name)
	return c, nil
}

// outward returns the address at which other machines most likely reach this
// one: of hardware before software links, IPv4 before IPv6, in their order.
func (f *Facts) outward() (best Link, addr netip.Addr, ok bool) {
	rank := 4
	for _, l := range f.Links {
		if !l.Up || !l.Carrier || l.Loopback {
			continue
		}
		for _, p := range l.Addresses {
			if !routable(p.Addr()) {
				continue
			}
			r := 0
			if l.Kind != "" {
				r += 2
			}
			if p.Addr().Is6() {
				r++
			}
			if r < rank {
				best, addr, ok, rank = l, p.Addr(), true, r
			}
		}
	}
	return best, addr, ok
}
