package sim

import (
	"math/bits"
	"math/rand/v2"
	"time"
)

// stream is a source of chance of its own for each kind of decision, so that one
// more draw of a kind, or a fault that is switched on, shifts no other.
type stream uint8

const (
	streamDelay stream = iota
	streamReplyDelay
	streamReorder
	streamTear
	streamEarlyAck
	streamSplit
	streamLoseRequest
	streamLoseReply
	streamLate
	streamRemoteOperation
	streamFatal
	streamControl
	streamTimeout
	streamScribble
	streamSwarm
	streams
)

// dice are the streams of one seed.
type dice struct{ pcg [streams]rand.PCG }

func (d *dice) seed(seed uint64) {
	for i := range d.pcg {
		d.pcg[i].Seed(seed, uint64(i))
	}
}

// chance is true with probability p. It draws only if there is a choice.
func (d *dice) chance(s stream, p float64) bool {
	return p > 0 && d.unit(s) < p
}

// unit is in [0, 1).
func (d *dice) unit(s stream) float64 { return float64(d.pcg[s].Uint64()>>11) * 0x1p-53 }

// below is in [0, n). Its bias is n in 2^64.
func (d *dice) below(s stream, n uint64) uint64 {
	high, _ := bits.Mul64(d.pcg[s].Uint64(), n)
	return high
}

func (d *dice) within(s stream, r Range) time.Duration {
	if r.Min == r.Max {
		return r.Min
	}
	return r.Min + time.Duration(d.below(s, uint64(r.Max-r.Min)+1))
}
