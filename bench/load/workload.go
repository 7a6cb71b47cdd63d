package load

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/tenure-faas/tenure/bench/zipf"
)

// workload is one kind of request.
type workload struct {
	// path is where requests go, below the server's base path.
	path string
	// appendBody renders one request body.
	appendBody func(dst []byte, d *draw) []byte
	// appendRow renders line i of the initial state as NDJSON; nil if the
	// workload has no state.
	appendRow func(dst []byte, i int, balance int64) []byte
}

var workloads = map[string]workload{
	"bank":   {path: "/v1/workflows/transfer/invoke", appendBody: appendTransfer, appendRow: appendAccount},
	"txn":    {path: "/v1/txn", appendBody: appendTxn, appendRow: appendAccount},
	"travel": {path: "/v1/workflows/reserve/invoke", appendBody: appendReserve},
	"media":  {path: "/v1/workflows/review/invoke", appendBody: appendReview},
	"empty":  {path: "/", appendBody: func(dst []byte, _ *draw) []byte { return append(dst, "{}"...) }},
}

// Workloads returns the names of the workloads, sorted.
func Workloads() []string { return slices.Sorted(maps.Keys(workloads)) }

// draw is where one worker's requests get their random parts from.
type draw struct {
	rng  *rand.Rand
	n    int
	skew *zipf.Generator // nil: uniform
	spot zipf.Permutation
}

// newDraw returns the draws of one worker, different for each seed and worker.
// Options must be valid.
func newDraw(o *Options, skew *zipf.Generator, worker int) *draw {
	return &draw{
		rng:  rand.New(rand.NewPCG(o.Seed, uint64(worker))),
		n:    o.Accounts,
		skew: skew,
		spot: zipf.NewPermutation(o.Accounts),
	}
}

// key draws an account number.
func (d *draw) key() int {
	if d.skew == nil {
		return d.rng.IntN(d.n)
	}
	return d.spot.At(d.skew.Rank(d.rng))
}

// pair draws two different account numbers. Under a steep law the hottest one
// may come up again and again, so after some draws its neighbour is taken.
func (d *draw) pair() (from, to int) {
	from = d.key()
	for range 64 {
		if to = d.key(); to != from {
			return from, to
		}
	}
	return from, (from + 1) % d.n
}

// appendName writes letter and number with at least seven digits, so that
// bodies have one length up to ten million accounts.
func appendName(dst []byte, letter byte, i int) []byte {
	dst = append(dst, letter)
	for limit := 1_000_000; i < limit && limit > 1; limit /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, int64(i), 10)
}

func appendTransfer(dst []byte, d *draw) []byte {
	from, to := d.pair()
	dst = append(dst, `{"from":"`...)
	dst = appendName(dst, 'a', from)
	dst = append(dst, `","to":"`...)
	dst = appendName(dst, 'a', to)
	dst = append(dst, `","amount":`...)
	dst = append(dst, '1'+byte(d.rng.IntN(9)))
	return append(dst, '}')
}

// appendTxn is the same transfer as two counter operations of one transaction:
// what a transfer costs without a function.
func appendTxn(dst []byte, d *draw) []byte {
	from, to := d.pair()
	amount := '1' + byte(d.rng.IntN(9))
	dst = append(dst, `{"ops":[{"op":"add","table":"accounts","key":"`...)
	dst = appendName(dst, 'a', from)
	dst = append(dst, `","value":-`...)
	dst = append(dst, amount)
	dst = append(dst, `},{"op":"add","table":"accounts","key":"`...)
	dst = appendName(dst, 'a', to)
	dst = append(dst, `","value":`...)
	dst = append(dst, amount)
	return append(dst, `}]}`...)
}

func appendReserve(dst []byte, d *draw) []byte {
	user, trip := d.pair()
	dst = append(dst, `{"user":"`...)
	dst = appendName(dst, 'u', user)
	dst = append(dst, `","hotel":"`...)
	dst = appendName(dst, 'h', trip)
	dst = append(dst, `","flight":"`...)
	dst = appendName(dst, 'f', d.key())
	return append(dst, `"}`...)
}

func appendReview(dst []byte, d *draw) []byte {
	user, movie := d.pair()
	dst = append(dst, `{"user":"`...)
	dst = appendName(dst, 'u', user)
	dst = append(dst, `","movie":"`...)
	dst = appendName(dst, 'm', movie)
	dst = append(dst, `","rating":`...)
	dst = append(dst, '1'+byte(d.rng.IntN(5)))
	return append(dst, `,"text":"seen twice"}`...)
}

// appendAccount is the line of account i for POST /v1/state.
func appendAccount(dst []byte, i int, balance int64) []byte {
	dst = append(dst, `{"table":"accounts","key":"`...)
	dst = appendName(dst, 'a', i)
	dst = append(dst, `","value":`...)
	dst = strconv.AppendInt(dst, balance, 10)
	return append(dst, "}\n"...)
}
