package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
)

// Under emulation a guest's time stamp counter (TSC) is that of the host. The
// kernel of a node does not trust it, for its processors do not promise that it
// is steady, and takes a device for its clock, which costs 3.4 us for each look
// instead of 0.2. It can be told that the counter is reliable, but not without
// telling how fast it counts: what the kernel measures itself while the host is
// busy was ten times wrong.

// steadyFlags are what the processors of a host say whose counter is a clock.
var steadyFlags = []string{"constant_tsc", "nonstop_tsc"}

// clockParameters returns the kernel's parameters for a node's clock; none if
// the counter of this machine is not known to be steady.
func clockParameters(cpuinfo string) []string {
	raw, err := os.ReadFile(cpuinfo)
	if err != nil || !steady(string(raw)) {
		return nil
	}
	kilohertz, err := counterRate()
	if err != nil {
		return nil
	}
	return []string{"tsc=reliable", fmt.Sprintf("tsc_early_khz=%d", kilohertz)}
}

// steady reports whether every processor has all steadyFlags.
func steady(cpuinfo string) bool {
	processors := 0
	for line := range strings.Lines(cpuinfo) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		processors++
		has := map[string]bool{}
		for _, f := range strings.Fields(flags) {
			has[f] = true
		}
		for _, want := range steadyFlags {
			if !has[want] {
				return false
			}
		}
	}
	return processors > 0
}

// cyclesLine is in the text of a profile of blocking: the runtime measures how
// fast the counter counts, from its start to the first time that somebody asks.
var cyclesLine = regexp.MustCompile(`(?m)^cycles/second=(\d+)$`)

// counterRate returns how fast the time stamp counter counts, in kHz.
func counterRate() (int64, error) {
	var text bytes.Buffer
	if err := pprof.Lookup("block").WriteTo(&text, 1); err != nil {
		return 0, err
	}
	match := cyclesLine.FindSubmatch(text.Bytes())
	if match == nil {
		return 0, errors.New("the runtime does not tell how fast the time stamp counter is")
	}
	hertz, err := strconv.ParseInt(string(match[1]), 10, 64)
	if err == nil && (hertz < 1e8 || hertz > 1e10) {
		err = fmt.Errorf("a time stamp counter of %d Hz is not believable", hertz)
	}
	return hertz / 1000, err
}
