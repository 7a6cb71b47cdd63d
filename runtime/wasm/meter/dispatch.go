package meter

// dispatch describes a loop that begins with blocks and a br_table which chooses among them by a local:
//
//	loop                     frame id k
//	  block ... block        frames k+1 .. k+n, all adjacent
//	    local.get X
//	    br_table labels...
//	    end                  <- label 0 continues here
//	    i32.const 3
//	    local.set X
//	    br loop              <- a jump to the end of the block that labels[3] names
//
// The Go compiler turns every jump inside of a function into this, most of them forward. The triple of const, set and br
// stands for a jump to a known place, because nothing can come between its parts: a label is only ever bound to an
// instruction that is none of them. If the block at whose end that place is is still open, the place lies ahead, and the
// jump needs no check.
type dispatch struct {
	id     int // of the frame of the loop
	local  uint32
	blocks int
	labels []uint32 // the last one is the default
	ends   []int    // where the code behind each block begins, outermost block first; 0 while the block is open
}

// target returns the depth among the blocks of the loop, outermost 0, at the end of which the code for value continues;
// false if it is not a block of the loop.
func (d *dispatch) target(value uint32) (int, bool) {
	label := int(d.labels[min(uint64(value), uint64(len(d.labels)-1))])
	return d.blocks - 1 - label, label < d.blocks
}

// jump returns where a br to the loop at the given position goes through the dispatch header of the loop: 0 if that lies
// ahead, behind a block that is still open. It returns false if the br is not such a jump.
func (b *body) jump(at int) (to int, known bool) {
	d := b.frames[at].dispatch
	if d == nil || d.labels == nil || b.last.op != opLocalSet || b.last.value != d.local || b.prev.op != opI32Const {
		return 0, false
	}
	block, known := d.target(b.prev.value)
	if !known {
		return 0, false
	}
	return d.ends[block], true
}
