package membership

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
)

// Limits of an instance, in bytes: it comes from another process and is stored.
const (
	maxName     = 64
	maxAddress  = 256
	maxProvider = 32
	maxZone     = 64
)

// Nonce names one run of a process: random, drawn at its start.
type Nonce [16]byte

// String returns it in hexadecimal.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// MarshalText implements encoding.TextMarshaler.
func (n Nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Nonce) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(n) {
		return fmt.Errorf("nonce %q is not %d bytes in hexadecimal", text, len(n))
	}
	copy(n[:], raw)
	return nil
}

// Instance is one run of a worker process, which wants to be a member.
type Instance struct {
	// Name is the worker's, at most 64 bytes: it keeps it across restarts.
	Name string
	// Nonce is this run's; not zero.
	Nonce Nonce
	// Address is where other processes reach its control plane, at most 256 bytes.
	Address string
	// Provider is the name of its provider of verbs, at most 32 bytes.
	Provider string
	// Zone says where it is, at most 64 bytes; may be empty.
	Zone string
}

func (i *Instance) validate() error {
	for _, field := range []struct {
		what, value string
		max         int
		empty       bool
	}{
		{"name", i.Name, maxName, false}, {"address", i.Address, maxAddress, false},
		{"provider", i.Provider, maxProvider, false}, {"zone", i.Zone, maxZone, true},
	} {
		if field.value == "" && !field.empty || len(field.value) > field.max {
			return base.Invalidf("worker", "its %s has %d bytes, at most %d are allowed", field.what, len(field.value), field.max)
		}
		if !utf8.ValidString(field.value) || strings.ContainsFunc(field.value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return base.Invalidf("worker", "its %s %q has characters that cannot be printed", field.what, field.value)
		}
	}
	if i.Nonce == (Nonce{}) {
		return base.Invalidf("worker", "%s joins without a nonce: draw one at each start", i.Name)
	}
	return nil
}

// Member is an instance that was admitted.
type Member struct {
	// Member has its number and incarnation.
	lease.Member
	// Name, Address, Provider and Zone are what it joined with.
	Name, Address, Provider, Zone string
}

// Record is what survives a restart, in JSON. With all numbers in use and every
// name at the limits it has about 5 MB; with hundred workers about 100 kB.
type Record struct {
	// View is the number of the last view decided.
	View base.View `json:"view"`
	// Members has the incarnation of each worker that is a member.
	Members map[string]uint64 `json:"members"`
	// Incarnations has the highest incarnation ever admitted of every name that is
	// known, so that none comes back under an earlier one's number.
	Incarnations map[string]uint64 `json:"incarnations"`
	// Floor is what incarnations are above, of names that are not known, too: the
	// view of the store when the record was found to be older than it.
	Floor base.View `json:"floor,omitempty"`
	// Workers has the rest of what is known of each name; a record written by
	// a node of one worker has none.
	Workers map[string]Worker `json:"workers,omitempty"`
}

// Worker is what a Record keeps of a name.
type Worker struct {
	// Number is the worker's.
	Number lease.Worker `json:"number"`
	// Incarnation is the one that Nonce, Address, Provider and Zone belong to, and
	// Since the view that admitted it; 0 if the worker is no member.
	Incarnation uint64    `json:"incarnation,omitempty"`
	Since       base.View `json:"since,omitempty"`
	Nonce       Nonce     `json:"nonce,omitzero"`
	Address     string    `json:"address,omitempty"`
	Provider    string    `json:"provider,omitempty"`
	Zone        string    `json:"zone,omitempty"`
	// Past are the nonces of the last instances that have gone, oldest first.
	Past []Nonce `json:"past,omitempty"`
	// Left is the view without the last of them.
	Left base.View `json:"left,omitempty"`
}

func (c *Core) record() Record {
	r := Record{View: c.view, Floor: c.floor, Members: map[string]uint64{}, Incarnations: map[string]uint64{}, Workers: map[string]Worker{}}
	for name, w := range c.names {
		if w.highest > 0 {
			r.Incarnations[name] = uint64(w.highest)
		}
		if w.number == lease.Free {
			continue
		}
		out := Worker{Number: w.number, Past: slices.Clone(w.past), Left: w.left}
		if m := w.current; m != nil {
			r.Members[name] = uint64(m.incarnation)
			out.Incarnation, out.Since, out.Nonce = uint64(m.incarnation), m.since, m.Nonce
			out.Address, out.Provider, out.Zone = m.Address, m.Provider, m.Zone
		}
		r.Workers[name] = out
	}
	return r
}

// restore takes over a record. A member of which the record has no particulars
// was admitted by a node of one worker that is its own leasemgr: it ended with
// that process and is out.
func (c *Core) restore(r Record) error {
	c.view, c.floor = r.View, r.Floor
	for name := range maps.Keys(r.Incarnations) {
		if r.Incarnations[name] > uint64(^uint32(0)) {
			return fmt.Errorf("membership record: worker %q has incarnation %d", name, r.Incarnations[name])
		}
		c.names[name] = &worker{name: name, highest: uint32(r.Incarnations[name])}
	}
	for name, in := range r.Workers {
		w := c.names[name]
		if w == nil { // known by a number that was given to it, and never admitted
			w = &worker{name: name}
			c.names[name] = w
		}
		if other := c.numbers[in.Number]; other != nil || in.Number == lease.Free || in.Number > lease.MaxWorker {
			return fmt.Errorf("membership record: the number %d of worker %q is not its own, or not in 1..%d", in.Number, name, lease.MaxWorker)
		}
		w.number, w.past, w.left = in.Number, slices.Clone(in.Past), in.Left
		c.numbers[in.Number] = w
		if in.Incarnation > 0 && in.Incarnation == r.Members[name] {
			w.current = &member{Instance: Instance{Name: name, Nonce: in.Nonce, Address: in.Address, Provider: in.Provider, Zone: in.Zone},
				incarnation: uint32(in.Incarnation), since: in.Since, renewed: c.now}
		}
	}
	return nil
}

// known returns the worker of a name and gives it a number if it has none: the
// lowest that was never used, or else that of the name whose last instance left
// first, which is forgotten. The number's incarnations go on.
func (c *Core) known(name string) (*worker, error) {
	w := c.names[name]
	if w != nil && w.number != lease.Free {
		return w, nil
	}
	number, highest, err := c.freeNumber()
	if err != nil {
		return nil, err
	}
	if w == nil {
		w = &worker{name: name}
		c.names[name] = w
	}
	w.number, w.highest = number, max(w.highest, highest)
	c.numbers[number] = w
	return w, nil
}

func (c *Core) freeNumber() (lease.Worker, uint32, error) {
	var first *worker
	for n := lease.Worker(1); n <= lease.MaxWorker; n++ {
		w := c.numbers[n]
		if w == nil {
			return n, 0, nil
		}
		if w.current == nil && w.joining == nil && w.highest < ^uint32(0) && (first == nil || w.left < first.left) {
			first = w
		}
	}
	if first == nil {
		return 0, 0, base.Errorf(base.Overloaded, "the cluster has %d workers, it cannot have more", lease.MaxWorker)
	}
	delete(c.names, first.name)
	return first.number, first.highest, nil
}
