package verbs

import (
	"math/bits"
	"time"
)

// What the retry counters of a queue pair are set to, and the timer of receivers
// that are not ready.
const (
	// retries is how often an unanswered packet is sent again. 7 is the most of the
	// specification, but rxe takes that for ever, and would never find out that a
	// peer is dead.
	retries = 6
	// rnrRetries is how often a doorbell knocks again at a full receiver: finite,
	// because for ever (7) has locked up kernels.
	rnrRetries = 6
	// rnrTimer is the code of 20.48 ms between those: a receiver may be late by
	// 120 ms, which is more than a collector or a scheduler takes.
	rnrTimer = 22
	// The timeout codes; 0 means for ever.
	minTimeoutCode, maxTimeoutCode = 1, 31
)

// timeoutTotal is how long a silent peer is waited for with a timeout code: the
// first attempt and all retries. The specification lets a device take four times
// as long.
func timeoutTotal(code uint8) time.Duration {
	return (1 + retries) * (4096 * time.Nanosecond) << code
}

// timeoutCode is the code whose total is nearest to the wish, by ratio.
func timeoutCode(wish time.Duration) uint8 {
	for code := uint8(minTimeoutCode); code < maxTimeoutCode; code++ {
		// The next one is nearer from the geometric mean on, sqrt(2) times this one;
		// in squares, since there is no square root of integers.
		if low := timeoutTotal(code); low >= wish || !beyond(wish, low) {
			return code
		}
	}
	return maxTimeoutCode
}

// beyond says whether wish > low * sqrt(2).
func beyond(wish, low time.Duration) bool {
	wishHigh, wishLow := bits.Mul64(uint64(wish), uint64(wish))
	high, lower := bits.Mul64(uint64(low), uint64(low)*2)
	return wishHigh > high || wishHigh == high && wishLow > lower
}
