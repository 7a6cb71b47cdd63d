package plant_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenure-faas/tenure/internal/plant"
)

// build builds the tests of a package with the bugs compiled in, and returns
// what runs one of them with one bug active.
func build(t *testing.T, pkg string) func(bug plant.Bug, test string) (string, error) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "planted.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "plant", "-o", binary, "../../"+pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
	return func(bug plant.Bug, test string) (string, error) {
		cmd := exec.CommandContext(t.Context(), binary, "-test.run", "^"+test+"$", "-test.v", "-test.timeout", "10m")
		cmd.Env = append(os.Environ(), "TENURE_PLANT="+string(bug))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

// TestEveryPlantedLeaseBugIsFound: the adversary of package lease finds each.
func TestEveryPlantedLeaseBugIsFound(t *testing.T) {
	run := build(t, "lease")
	for _, bug := range plant.Lease {
		t.Run(string(bug), func(t *testing.T) {
			out, err := run(bug, "TestPlantedBugIsFound")
			if err != nil || !strings.Contains(out, string(bug)+": found after") {
				t.Errorf("the adversary did not find it: %v\n%s", err, out)
			}
			t.Log(firstLineWith(out, "found after"))
		})
	}
}

// TestEveryPlantedBugIsFound activates one bug of the worker after the other:
// the history checker, or the test that guards the property, must find it.
func TestEveryPlantedBugIsFound(t *testing.T) {
	run := build(t, "worker")
	for _, bug := range plant.All {
		t.Run(string(bug), func(t *testing.T) {
			out, err := run(bug, "TestPlantedBugIsFound")
			if err != nil || !strings.Contains(out, string(bug)+": found after") {
				t.Errorf("the checker did not find it: %v\n%s", err, out)
			}
			t.Log(firstLineWith(out, "found after"))
		})
	}
	for bug, test := range map[plant.Bug]string{
		plant.NoFlight:  "TestIdempotencyKeyHasOneEffect",
		plant.NoBarrier: "TestCrashAtEveryWrite",
	} {
		t.Run(string(bug), func(t *testing.T) {
			if out, err := run(bug, test); err == nil {
				t.Errorf("%s passed with the bug:\n%s", test, out)
			}
			if out, err := run("", test); err != nil {
				t.Errorf("%s fails without the bug: %v\n%s", test, err, out)
			}
		})
	}
}

func firstLineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return strings.TrimSpace(line)
		}
	}
	return "(no line with " + part + ")"
}
