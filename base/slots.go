//go:build !fewslots

package base

// SlotCount is the number of slots, hash classes of keys and of tables. A lease
// covers a slot, and slot order is the global lock order (lease_protocol section 1).
const SlotCount = 1 << 20
