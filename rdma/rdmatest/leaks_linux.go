package rdmatest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// number is the part of a link's target that differs between equal files.
var number = regexp.MustCompile(`\[\d+\]$`)

// openFiles counts the open files of this process by what they are.
func openFiles() map[string]int {
	files := map[string]int{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return files
	}
	for _, e := range entries {
		// The descriptor of the directory itself is gone by now.
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil {
			files[number.ReplaceAllString(target, "")]++
		}
	}
	return files
}

// sharedMappings counts the mapped memfds of this process. Private mappings
// cannot be told from those of the runtime.
func sharedMappings() map[string]int {
	mappings := map[string]int{}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return mappings
	}
	for line := range strings.Lines(string(maps)) {
		if _, name, ok := strings.Cut(line, "/memfd:"); ok {
			mappings["memfd:"+strings.TrimSpace(name)]++
		}
	}
	return mappings
}
