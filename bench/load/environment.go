package load

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// Environment is where a figure was measured.
type Environment struct {
	Go         string    `json:"go"`
	OS         string    `json:"os"`
	Arch       string    `json:"arch"`
	CPU        string    `json:"cpu,omitempty"` // the model's name, if the system tells
	CPUs       int       `json:"cpus"`
	GOMAXPROCS int       `json:"gomaxprocs"`
	Time       time.Time `json:"time"`
}

// CurrentEnvironment describes this machine and process.
func CurrentEnvironment() Environment {
	return Environment{
		Go:         runtime.Version(),
		OS:         runtime.GOOS,
		Arch:       runtime.GOARCH,
		CPU:        cpuModel(),
		CPUs:       runtime.NumCPU(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		Time:       time.Now().UTC().Truncate(time.Second),
	}
}

// String returns the environment in one line.
func (e Environment) String() string {
	s := fmt.Sprintf("%s %s/%s, %d CPUs, GOMAXPROCS %d", e.Go, e.OS, e.Arch, e.CPUs, e.GOMAXPROCS)
	if e.CPU != "" {
		s += ", " + e.CPU
	}
	return s
}

// cpuModel reads the model from where Linux shows it; elsewhere it is empty.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// usage is what the process has used since it started.
type usage struct {
	cpu         time.Duration // user and system time of all threads
	allocations uint64
}

func currentUsage() usage {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return usage{cpu: processCPU(), allocations: memory.Mallocs}
}
