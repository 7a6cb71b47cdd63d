package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseLine(t *testing.T) {
	output := func(text string) event { return event{kind: eventOutput, text: text} }
	for _, c := range []struct {
		line string
		want event
	}{
		{"hello\r\n", output("hello")},
		{"", output("")},
		{"rxevm T ready\r\n", event{kind: eventReady}},
		{"rxevm T exit 0\n", event{kind: eventExit}},
		{"rxevm T exit 143\r\n", event{kind: eventExit, status: 143}},
		{"rxevm T exit\n", event{kind: eventFailed, text: `its exit status is ""`}},
		{"rxevm T exit 0x\n", event{kind: eventFailed, text: `its exit status is "0x"`}},
		{"rxevm T failed insmod rdma_rxe\n", event{kind: eventFailed, text: "insmod rdma_rxe"}},
		{"rxevm U exit 0\n", output("rxevm U exit 0")},
		{"said: rxevm T exit 0\n", output("said: rxevm T exit 0")},
		{"a\x00b\n", output("ab")},
	} {
		if got := parseLine(c.line, "T"); got != c.want {
			t.Errorf("%q is %+v, want %+v", c.line, got, c.want)
		}
	}
}

func TestReadConsole(t *testing.T) {
	long := strings.Repeat("x", 2*maxLine+10)
	for _, c := range []struct {
		name, console string
		stop          string
		want          []string
	}{
		{"nothing", "", "", nil},
		{"lines, the last without its end", "a\r\nb\n\nc", "", []string{"a", "b", "", "c"}},
		{"a line that never ends", long, "", []string{long[:maxLine], long[:maxLine], long[:10]}},
		{"stopped", "a\nb\nc\n", "b", []string{"a", "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			// One byte at a time, as a serial line may.
			err := readConsole(iotest.OneByteReader(strings.NewReader(c.console)), "T", func(e event) bool {
				got = append(got, e.text)
				return e.text != c.stop || c.stop == ""
			})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
	broken := errors.New("broken")
	if err := readConsole(iotest.ErrReader(broken), "T", func(event) bool { return true }); !errors.Is(err, broken) {
		t.Errorf("the error of the console is %v", err)
	}
}

func TestPrinter(t *testing.T) {
	var out bytes.Buffer
	p := &printer{out: &out}
	p.line(2, "50% done")
	p.note("node %d: %s", 2, "over")
	if got, want := out.String(), "node2| 50% done\nrxevm: node 2: over\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
