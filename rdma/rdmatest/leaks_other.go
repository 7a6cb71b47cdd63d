//go:build !linux

package rdmatest

// openFiles knows nothing where there is no /proc.
func openFiles() map[string]int { return nil }

// sharedMappings knows nothing where there is no /proc.
func sharedMappings() map[string]int { return nil }
