package meter_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// endless are guests which do not end by themselves within any deadline of the tests.
type endless struct {
	name   string
	code   []byte
	export string
	arg    uint64
}

// callTree is 45 functions without loops or recursion, each of which calls the next one twice.
func callTree() []byte {
	const n = 45
	types, bodies := make([][]byte, n), make([][]byte, n)
	for i := range n {
		types[i] = u(0)
		bodies[i] = fn(nil, nop)
		if i+1 < n {
			next := u(uint64(i + 1))
			bodies[i] = fn(nil, cat([]byte{call}, next, []byte{call}, next)...)
		}
	}
	return wasm(sec(1, vec(typ(nil, nil))), sec(3, vec(types...)), sec(7, vec(export("f", 0, 0))), sec(10, vec(bodies...)))
}

// fills is n times memory.fill of 64 MB in a straight line.
func fills(n int) []byte {
	one := cat([]byte{i32Const, 0, i32Const, 7, i32Const}, s(64<<20), []byte{misc, 0x0b, 0})
	return wasm(
		sec(1, vec(typ(nil, nil))), sec(3, vec(u(0))), sec(5, vec(cat([]byte{0}, u(1024)))),
		sec(7, vec(export("f", 0, 0))), sec(10, vec(fn(nil, slices.Repeat(one, n)...))),
	)
}

// unwinding recurses to the given depth, cheaply, and then runs a long tail without branches in every frame.
func unwinding(tail int) []byte {
	step := []byte{globalGet, 0, i64Const, 13, 0x7e, i64Const, 7, 0x85, globalSet, 0} // x = x*13 ^ 7
	return wasm(
		sec(1, vec(typ([]byte{i32}, nil))), sec(3, vec(u(0))), sec(6, vec([]byte{i64, 1, i64Const, 1, end})),
		sec(7, vec(export("f", 0, 0))),
		sec(10, vec(fn(nil, cat(
			[]byte{localGet, 0, i32Eqz, if_, void, ret, end, localGet, 0, i32Const, 1, i32Sub, call, 0},
			slices.Repeat(step, tail))...))),
	)
}

func endlessGuests(tb testing.TB) []endless {
	spin := single(nil, nil, nil, loop, void, br, 0, end)
	brTableSpin := single(nil, nil, nil, loop, void, i32Const, 0, brTable, 0, 0, end)
	return []endless{
		{"empty loop", spin, "f", 0},
		{"br_table loop", brTableSpin, "f", 0},
		{"go for {}", goGuest(tb), "spin", 1},
		{"go fib(60)", goGuest(tb), "fib", 60},
		{"as while (true)", asGuest(tb), "spin", 1},
		{"as fib(60)", asGuest(tb), "fib", 60},
		{"call tree", callTree(), "f", 0},
		{"2000 fills", fills(2000), "f", 0},
		{"long loop", single(nil, nil, []byte{i64}, cat([]byte{loop, void},
			slices.Repeat([]byte{localGet, 0, i64Const, 13, 0x7e, i64Const, 7, 0x85, localSet, 0}, 50_000), []byte{br, 0, end})...), "f", 0},
		{"unwinding", unwinding(20_000), "f", 50_000},
	}
}

// stop runs a guest with the given time to live, while other goroutines allocate and collect garbage, and returns how
// much later than the deadline the call returned.
func stop(t *testing.T, h *host, mod endless, code []byte, ttl time.Duration) time.Duration {
	t.Helper()
	h.deadline = time.Now().Add(time.Hour)
	instance := h.instance(t, code)
	defer instance.Close(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	var noise sync.WaitGroup
	noise.Go(func() {
		var keep [64][]byte
		for i := 0; ctx.Err() == nil; i++ {
			keep[i%len(keep)] = make([]byte, 64<<10)
			if i%64 == 0 {
				runtime.GC()
			}
			runtime.Gosched()
		}
	})
	defer noise.Wait()
	defer cancel()
	f := instance.ExportedFunction(mod.export)
	var args []uint64
	if n := len(f.Definition().ParamTypes()); n > 0 {
		args = []uint64{mod.arg}
	}
	h.deadline = time.Now().Add(ttl)
	_, err := f.Call(context.Background(), args...)
	late := time.Since(h.deadline)
	if !errors.Is(err, errStopped) {
		t.Fatalf("ended with %v, not by the deadline", err)
	}
	return late
}

func TestEndlessGuestsEnd(t *testing.T) {
	h := newHost(t)
	for _, guest := range endlessGuests(t) {
		t.Run(guest.name, func(t *testing.T) {
			late := stop(t, h, guest, rewrite(t, guest.code).Code, 100*time.Millisecond)
			t.Logf("ended %v after the deadline", late)
		})
	}
}

// TestStopWithinBound holds the figure that the platform promises. It asks it of the best round: a busy machine makes
// stops late that have nothing to do with the guest, and a guest that does not look at its fuel is late in every round.
func TestStopWithinBound(t *testing.T) {
	const bound, rounds = 20 * time.Millisecond, 40
	h := newHost(t)
	for _, guest := range endlessGuests(t) {
		code := rewrite(t, guest.code).Code
		var late []time.Duration
		for len(late) == 0 || len(late) < rounds && slices.Min(late) > bound {
			late = append(late, stop(t, h, guest, code, 50*time.Millisecond))
		}
		t.Logf("%-16s %v", guest.name, late)
		if best := slices.Min(late); best > bound {
			t.Errorf("%s: every stop is late, the best by %v, more than %v", guest.name, best, bound)
		}
	}
}

// TestFuelNeverRises drives the charges with the largest lengths there are and reads the fuel after each call.
func TestFuelNeverRises(t *testing.T) {
	for _, length := range []uint32{0, 63, 64, 1 << 16, math.MaxInt32, 1 << 31, math.MaxUint32} {
		h := newHost(t)
		h.slice = 1000
		// Both traps and passes count: the charge comes before the operation.
		code := single(nil, nil, nil, cat([]byte{i32Const, 0, i32Const, 7, i32Const}, s(int64(int32(length))), []byte{misc, 0x0b, 0})...)
		out, err := meter.Rewrite(code, meter.Options{Slice: 1000})
		if err != nil {
			t.Fatal(err)
		}
		mod := h.instance(t, out.Code)
		_, err = mod.ExportedFunction("f").Call(context.Background())
		if trapped := length > 1<<16; trapped != (err != nil) {
			t.Errorf("fill of %d bytes: error %v", length, err)
		}
		fuel := int64(mod.ExportedGlobal(meter.FuelExport).Get())
		want := 1000 - 1 - int64(length>>6) - 1
		if want < 0 {
			want = int64(h.slice)
		}
		if fuel != want {
			t.Errorf("fill of %d bytes leaves %d fuel, want %d", length, fuel, want)
		}
	}
}

// TestGuestCannotRefuel builds the attack: the original refers to the global that only the rewriter adds.
func TestGuestCannotRefuel(t *testing.T) {
	refuel := append([]byte{i64Const}, binary.AppendUvarint(nil, 0)...)
	code := single(nil, nil, nil, cat([]byte{loop, void}, refuel, []byte{globalSet, 0, br, 0, end})...)
	_, err := meter.Rewrite(code, meter.Options{})
	var refused *meter.Error
	if !errors.As(err, &refused) {
		t.Fatalf("a guest that sets its own fuel: error %v, want a refusal", err)
	}
}
