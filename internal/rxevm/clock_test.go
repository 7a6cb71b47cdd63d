package main

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestSteady(t *testing.T) {
	const good = "flags\t\t: fpu tsc constant_tsc rep_good nonstop_tsc cpuid\n"
	for _, c := range []struct {
		name, cpuinfo string
		want          bool
	}{
		{"both flags", "processor\t: 0\n" + good, true},
		{"all processors", good + "\n" + good, true},
		{"one flag", "flags : tsc constant_tsc\n", false},
		{"one processor lacks it", good + "flags : nonstop_tsc\n", false},
		{"a part of a name", "flags : constant_tsc_x nonstop_tsc\n", false},
		{"another processor", "Features : fp asimd\n", false},
		{"nothing", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := steady(c.cpuinfo); got != c.want {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestClockParameters(t *testing.T) {
	dir := t.TempDir()
	if got := clockParameters(filepath.Join(dir, "absent")); got != nil {
		t.Errorf("of a machine that is not known: %v", got)
	}
	unsteady := writeFile(t, []byte("flags : tsc\n"), dir, "unsteady")
	if got := clockParameters(unsteady); got != nil {
		t.Errorf("of a machine without a steady counter: %v", got)
	}
	if runtime.GOARCH != "amd64" {
		return // the runtime reads another counter
	}
	got := clockParameters(writeFile(t, []byte("flags : constant_tsc nonstop_tsc\n"), dir, "steady"))
	if len(got) != 2 || got[0] != "tsc=reliable" || !strings.HasPrefix(got[1], "tsc_early_khz=") {
		t.Errorf("of a machine with one: %v", got)
	}
}
