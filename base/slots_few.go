//go:build fewslots

package base

// SlotCount is small in simulations, where a worker starts more often than it runs
// a transaction, and where keys should meet in one slot.
const SlotCount = 1 << 13
