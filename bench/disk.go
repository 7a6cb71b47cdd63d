package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

const (
	syncBlock = 4 << 10
	// syncBlocks is the length of the probe's file in blocks.
	syncBlocks = 256
	// maxSyncs and maxSyncTime bound one probe.
	maxSyncs    = 200
	maxSyncTime = time.Second
)

// SyncLatency returns the median time of writing 4 KiB and fdatasync in dir:
// the least that a durable commit can take on its disk. The blocks of the file
// exist before the first measured write, as those of a recycled log do, so that
// no allocation is measured. It blocks for about a second at most, or until
// ctx is done.
func SyncLatency(ctx context.Context, dir string) (median time.Duration, err error) {
	file, err := os.CreateTemp(dir, "sync-*")
	if err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	block := make([]byte, syncBlock)
	for i := range block {
		block[i] = byte(i * 131)
	}
	for i := range syncBlocks {
		if _, err := file.WriteAt(block, int64(i)*syncBlock); err != nil {
			return 0, fmt.Errorf("measure the disk: %w", err)
		}
	}
	if err := file.Sync(); err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	var times []time.Duration
	for begin := time.Now(); len(times) < maxSyncs && (len(times) == 0 || time.Since(begin) < maxSyncTime); {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("measure the disk: %w", ctx.Err())
		}
		block[0]++ // a block that did not change might not be written
		start := time.Now()
		if _, err := file.WriteAt(block, int64(len(times)%syncBlocks)*syncBlock); err != nil {
			return 0, fmt.Errorf("measure the disk: %w", err)
		}
		if err := syncData(file); err != nil {
			return 0, fmt.Errorf("measure the disk: %w", err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
