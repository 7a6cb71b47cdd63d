//go:build !linux

package bench

import "os"

// syncData makes the file durable: there is no portable fdatasync.
func syncData(file *os.File) error { return file.Sync() }
