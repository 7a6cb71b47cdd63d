package remote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/store"
)

// script is a store.Batch that writes down what it is told.
type script struct{ strings.Builder }

func (s *script) Set(key, value []byte)     { fmt.Fprintf(s, "set %q %q\n", key, value) }
func (s *script) Delete(key []byte)         { fmt.Fprintf(s, "delete %q\n", key) }
func (s *script) DeleteRange(lo, hi []byte) { fmt.Fprintf(s, "range %q %q\n", lo, hi) }
func (s *script) Release()                  {}

func TestCodec(t *testing.T) {
	var b batch
	write := func(to store.Batch) {
		to.Set([]byte("k"), []byte("v"))
		to.Set(nil, nil)
		to.Delete([]byte("gone"))
		to.DeleteRange([]byte("a"), []byte("b"))
		to.Set(bytes.Repeat([]byte("k"), 300), bytes.Repeat([]byte("v"), 70000))
	}
	write(&b)
	b.DeleteRange([]byte("b"), []byte("b")) // nothing
	b.DeleteRange([]byte("c"), nil)         // nothing
	var want, got script
	write(&want)
	if err := decode(b.operations, &got, nil); err != nil || got.String() != want.String() {
		t.Errorf("%v; got\n%.200s\nwant\n%.200s", err, got.String(), want.String())
	}
	for cut := 1; cut < 20; cut++ { // the first four operations have 17 bytes
		var part script
		err := decode(b.operations[:cut], &part, nil)
		whole := cut == 5 || cut == 8 || cut == 14 || cut == 19
		if (err == nil) != whole {
			t.Errorf("the first %d bytes: %v", cut, err)
		}
	}
}

func TestSpentBatchIsMisuse(t *testing.T) {
	b := &batch{}
	b.Release()
	defer func() {
		if recover() == nil {
			t.Error("a released batch could be written")
		}
	}()
	b.Set(nil, nil)
}

// FuzzDecode feeds the decoder with anything: it never panics, refuses with kind
// Invalid, and what it takes is taken again in the same meaning when it is
// encoded again; no forbidden key comes through.
func FuzzDecode(f *testing.F) {
	var b batch
	b.Set([]byte("k"), []byte("v"))
	b.Delete([]byte("gone"))
	b.DeleteRange([]byte("a"), []byte("b"))
	f.Add(b.operations)
	f.Add([]byte{opSet, 1, 'M', 0})
	f.Add([]byte{opDeleteRange, 1, 'L', 1, 'Z'})
	f.Add(binary.AppendUvarint([]byte{opDelete}, 1<<63))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var first, second script
		var again batch
		err := decode(raw, &tee{&first, &again}, meta())
		if err != nil {
			if e, ok := errors.AsType[*base.Error](err); !ok || e.Kind != base.Invalid {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if err := decode(again.operations, &second, nil); err != nil || first.String() != second.String() {
			t.Fatalf("%v: first\n%s\nthen\n%s", err, first.String(), second.String())
		}
		if strings.Contains(first.String(), `set "M`) || strings.Contains(first.String(), `delete "M`) {
			t.Fatalf("metadata is written:\n%s", first.String())
		}
	})
}

// tee writes to two batches.
type tee struct{ a, b store.Batch }

func (t *tee) Set(key, value []byte)     { t.a.Set(key, value); t.b.Set(key, value) }
func (t *tee) Delete(key []byte)         { t.a.Delete(key); t.b.Delete(key) }
func (t *tee) DeleteRange(lo, hi []byte) { t.a.DeleteRange(lo, hi); t.b.DeleteRange(lo, hi) }
func (t *tee) Len() int                  { return t.b.Len() }
func (t *tee) Release()                  {}

// TestPipelineAgainstWrongServers: answers that cannot be are errors and change
// nothing.
func TestPipelineAgainstWrongServers(t *testing.T) {
	// Batches 1..6, of which 2 are durable and 4 sent.
	p := &pipeline{view: 1}
	for range 6 {
		p.push(1, []byte("operations"))
	}
	p.sent = 4
	if err := p.acknowledge(2); err != nil || p.durable != 2 || len(p.entries) != 4 || p.bytes != 40 {
		t.Fatalf("%v: %+v", err, p)
	}
	for name, answer := range map[string]func() error{
		"the store lost data":         func() error { return p.welcome(1) },
		"the store has foreign data":  func() error { return p.welcome(7) },
		"acknowledged before sent":    func() error { return p.acknowledge(5) },
		"refused what is durable":     func() error { _, err := p.refuse(2, 9); return err },
		"refused what was never sent": func() error { _, err := p.refuse(5, 9); return err },
	} {
		if err := answer(); base.KindOf(err) != base.Internal || err == nil {
			t.Errorf("%s: %v", name, err)
		}
		if p.durable != 2 || p.sent != 4 || p.held != 0 || p.seal != 0 {
			t.Errorf("%s: changed the pipeline to %+v", name, p)
		}
	}
	if err := p.acknowledge(1); err != nil || p.durable != 2 {
		t.Errorf("an old acknowledgement: %v, durable %d", err, p.durable)
	}
}

// TestPipelineRelabels walks through a refusal in every order of refusal and
// SetView.
func TestPipelineRelabels(t *testing.T) {
	fill := func() *pipeline {
		p := &pipeline{view: 1}
		for range 4 {
			p.push(1, nil)
		}
		p.push(3, nil)
		p.sent = 5
		return p
	}
	labels := func(p *pipeline) (views []uint32) {
		for _, b := range p.frame().GetBatches() {
			views = append(views, b.GetView())
		}
		return views
	}
	for _, test := range []struct {
		name  string
		steps func(p *pipeline) bool
		held  bool
		views string
	}{
		{"refused, then moved", func(p *pipeline) bool { held, _ := p.refuse(2, 2); p.setView(2); return held }, true, "[2 2 2 3]"},
		{"moved, then refused", func(p *pipeline) bool { p.setView(2); held, _ := p.refuse(2, 2); return held }, false, "[2 2 2 3]"},
		{"moved too little", func(p *pipeline) bool { held, _ := p.refuse(2, 3); p.setView(2); return held }, true, "[]"},
		{"moved twice", func(p *pipeline) bool { held, _ := p.refuse(2, 3); p.setView(2); p.setView(4); return held }, true, "[4 4 4 4]"},
		{"never moved", func(p *pipeline) bool { held, _ := p.refuse(2, 2); p.setView(1); return held }, true, "[]"},
		{"connected again", func(p *pipeline) bool { held, _ := p.refuse(2, 2); _ = p.welcome(1); return held }, true, "[1 1 1 3]"},
		{"lost", func(p *pipeline) bool { held, _ := p.refuse(2, 2); p.lose(errClosed); p.setView(2); return held }, true, "[]"},
	} {
		p := fill()
		if held := test.steps(p); held != test.held {
			t.Errorf("%s: held %t", test.name, held)
		}
		if got := fmt.Sprint(labels(p)); got != test.views {
			t.Errorf("%s: labels %s are sent, want %s", test.name, got, test.views)
		}
	}
}

// TestFrames: frames are bounded by number and by size, and a large batch goes
// alone.
func TestFrames(t *testing.T) {
	p := &pipeline{}
	for range maxFrameBatches + 1 {
		p.push(1, nil)
	}
	for _, size := range []int{maxFrameBytes / 2, maxFrameBytes / 2, 1, maxFrameBytes + 1, 1} {
		p.push(1, make([]byte, size))
	}
	var got []int
	next := uint64(1)
	for f := p.frame(); f != nil; f = p.frame() {
		if f.First != next {
			t.Errorf("a frame begins with %d, want %d", f.First, next)
		}
		next += uint64(len(f.Batches))
		got = append(got, len(f.Batches))
	}
	if fmt.Sprint(got) != fmt.Sprint([]int{maxFrameBatches, 3, 1, 1, 1}) {
		t.Errorf("frames of %v batches", got)
	}
}
