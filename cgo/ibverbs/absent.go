//go:build !(linux && cgo && rdma)

package ibverbs

// Built says whether this program has the binding.
const Built = false
