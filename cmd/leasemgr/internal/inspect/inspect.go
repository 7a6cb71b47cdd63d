// Package inspect reads what the store of a stopped node says about the cluster.
//
// It reads the entries as they are stored and loads no module, so that it also
// shows a catalogue that no node would start with. It decides and changes
// nothing; the engine itself tidies its log when it opens, as at every start.
//
// Start reading at Read.
package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
	"github.com/tenure-faas/tenure/store"
	"github.com/tenure-faas/tenure/store/pebble"
)

// cacheBytes is enough to read a catalogue.
const cacheBytes = 8 << 20

// State is what the store says.
type State struct {
	View base.View `json:"view"`
	// Seal is the oldest view whose batches the store accepts.
	Seal base.View `json:"seal"`
	// Members has the number of starts of each member.
	Members   map[string]uint64       `json:"members"`
	Functions []Function              `json:"functions"`
	Workflows []leasemgr.WorkflowInfo `json:"workflows"`
}

// Function is a deployed function. Its handlers are in the module, which is not
// loaded.
type Function struct {
	Name     string                     `json:"name"`
	Version  string                     `json:"version"`
	Isolate  bool                       `json:"isolate"`
	Versions []leasemgr.FunctionVersion `json:"versions"`
}

// Read opens the store below the data directory, reads it and closes it. A
// directory without a store is an error and stays without one; so is a store in
// use by another process.
func Read(ctx context.Context, data string, logger *slog.Logger) (s *State, err error) {
	dir := filepath.Join(data, "store")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no store in %s; --data must name the data directory of a node", data)
	} else if err != nil {
		return nil, err
	}
	engine, err := pebble.Open(pebble.Options{Dir: dir, CacheBytes: cacheBytes, Logger: logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return read(engine, engine.Sealed())
}

// read collects the state from an open store.
func read(r store.Reader, seal base.View) (*State, error) {
	members, err := leasemgr.ReadMembership(r)
	if err != nil {
		return nil, err
	}
	s := &State{View: members.View, Seal: seal, Members: members.Members, Functions: []Function{}, Workflows: []leasemgr.WorkflowInfo{}}
	lo, hi := store.FunctionRange()
	err = entries(r, lo, hi, func(name string, f Function) {
		f.Name = name
		s.Functions = append(s.Functions, f)
	})
	if err != nil {
		return nil, err
	}
	lo, hi = store.WorkflowRange()
	err = entries(r, lo, hi, func(_ string, w leasemgr.WorkflowInfo) { s.Workflows = append(s.Workflows, w) })
	return s, err
}

// entries decodes every entry of a range; the key is a byte and a name.
func entries[T any](r store.Reader, lo, hi []byte, visit func(name string, v T)) error {
	var fault error
	err := r.Scan(lo, hi, func(key, raw []byte) bool {
		var v T
		if fault = json.Unmarshal(raw, &v); fault != nil {
			fault = fmt.Errorf("catalogue entry %q is not readable: %w", key, fault)
			return false
		}
		visit(string(key[1:]), v)
		return true
	})
	return errors.Join(err, fault)
}

// JSON writes the state as one object.
func (s *State) JSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(s)
}

// Text writes the state as tables.
func (s *State) Text(w io.Writer) error {
	var members, functions, workflows []table.Row
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		members = append(members, table.Row{name, s.Members[name], s.View, s.Seal})
	}
	for _, f := range s.Functions {
		deployed := "-"
		if n := len(f.Versions); n > 0 {
			deployed = f.Versions[n-1].Deployed.UTC().Format(time.RFC3339)
		}
		functions = append(functions, table.Row{f.Name, fmt.Sprintf("%.12s", f.Version), len(f.Versions), f.Isolate, deployed})
	}
	for _, f := range s.Workflows {
		workflows = append(workflows, table.Row{f.Name, f.Revision, len(f.Definition)})
	}
	return errors.Join(
		rows(w, table.Row{"member", "incarnation", "view", "seal"}, members),
		rows(w, table.Row{"function", "version", "kept", "isolate", "deployed"}, functions),
		rows(w, table.Row{"workflow", "revision", "bytes"}, workflows),
	)
}

// rows writes one table and an empty line.
func rows(w io.Writer, header table.Row, body []table.Row) error {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	t.AppendHeader(header)
	t.AppendRows(body)
	for line := range strings.SplitSeq(t.Render(), "\n") {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}
