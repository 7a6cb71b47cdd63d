//go:build wasip1 && wasm

package tenure

import (
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"time"
)

// This file is the guest's side of the ABI, version 1; the package runtime/wasm
// of the server is the other side. A string parameter is passed as pointer and
// length.

//go:wasmimport tenure input
//go:noescape
func hostInput(buf *byte)

//go:wasmimport tenure field
//go:noescape
func hostField(text *byte, size int32, name string) int64

//go:wasmimport tenure output
//go:noescape
func hostOutput(data *byte, size int32)

//go:wasmimport tenure fail
//go:noescape
func hostFail(reason string)

//go:wasmimport tenure abort
//go:noescape
func hostAbort(reason string)

//go:wasmimport tenure get
//go:noescape
func hostGet(table, key string, buf *byte, room int32) int64

//go:wasmimport tenure fetch
//go:noescape
func hostFetch(buf *byte)

//go:wasmimport tenure put
//go:noescape
func hostPut(table, key string, value *byte, size int32) int32

//go:wasmimport tenure get_int
//go:noescape
func hostGetInt(table, key string, n *int64) int32

//go:wasmimport tenure put_int
//go:noescape
func hostPutInt(table, key string, value int64) int32

//go:wasmimport tenure delete
//go:noescape
func hostDelete(table, key string) int32

//go:wasmimport tenure add
//go:noescape
func hostAdd(table, key string, delta int64) int32

//go:wasmimport tenure scan
//go:noescape
func hostScan(table, prefix string, limit int32, buf *byte, room int32) int64

//go:wasmimport tenure call
//go:noescape
func hostCall(function, handler string, input *byte, size int32, buf *byte, room int32) int64

//go:wasmimport tenure result
//go:noescape
func hostResult(step string, buf *byte, room int32) int64

//go:wasmimport tenure now
func hostNow() int64

//go:wasmimport tenure rand
func hostRand() int64

//go:wasmimport tenure log
//go:noescape
func hostLog(message string)

//go:wasmimport tenure invocation
//go:noescape
func hostInvocation(buf *byte)

//go:wasmimport tenure last_error
//go:noescape
func hostLastError(buf *byte, room int32) int64

// Answers of the host that are not lengths.
const (
	answerAbsent = -1
	answerOver   = -2
)

// arenaBytes is the size of a chunk for values that the host hands in: enough
// for what most handlers read, small beside the guest's heap.
const arenaBytes = 32 << 10

// yieldEvery is the number of calls after which the collector gets its turn. It
// runs in goroutines of its own, and those only when a handler's yields: without
// that the heap of a guest may grow for ever. A yield costs about 1.6
// microseconds, several times as much as an empty call, so not each call makes one;
// a heap that grows by several megabytes in a call starts the collector anyway.
const yieldEvery = 8

// guest is the one guestHost of this module: an instance runs one call at a
// time.
var guest guestHost

// guestHost is the Host that asks the platform. Values are received into a
// chunk that is used again for the next call, so that a handler which reads a
// few values allocates nothing.
type guestHost struct {
	context Context
	names   []byte // what tenure_handlers returned; referenced by the platform
	arena   []byte // its length is what the current call has been handed
	calls   uint32 // since the start
	chunks  chunks
}

//go:wasmexport tenure_handlers
func exportHandlers() int64 {
	names := make([]byte, 1, 256) // never empty, so that it has an address
	for i, r := range registry {
		if i > 0 {
			names = append(names, '\n')
		}
		names = append(names, r.name...)
	}
	guest.names = names[1:]
	if len(guest.names) == 0 {
		return 0
	}
	// Without the package unsafe, reflect is the way to an address as a number.
	address := reflect.ValueOf(&guest.names[0]).Pointer()
	return int64(address)<<32 | int64(len(guest.names))
}

//go:wasmexport tenure_invoke
func exportInvoke(handler, inputLen int32) int32 {
	failed := guest.invoke(handler, int(inputLen))
	if guest.calls++; guest.calls%yieldEvery == 0 {
		runtime.Gosched()
	}
	return failed
}

func (g *guestHost) invoke(handler int32, inputLen int) int32 {
	c := &g.context
	if c.host == nil {
		c.host = g
	}
	if cap(c.input) < inputLen {
		c.input = make([]byte, inputLen, inputLen+inputLen/4)
	}
	c.input = c.input[:inputLen] // the buffer of the last call
	if inputLen > 0 {
		hostInput(&c.input[0])
	}
	g.arena = g.arena[:0]
	output, err := registry[handler].handler(c)
	if err != nil {
		hostFail(err.Error())
		return 1
	}
	hostOutput(first(output), int32(len(output)))
	return 0
}

// first returns the address of the bytes, nil if there are none.
func first(b []byte) *byte {
	if len(b) == 0 {
		return nil
	}
	return &b[0]
}

// room returns the rest of the chunk, to receive a value.
func (g *guestHost) room() (buf *byte, size int32) {
	if cap(g.arena)-len(g.arena) < arenaBytes/32 {
		// The old chunk lives as long as the values in it.
		g.arena = make([]byte, 0, arenaBytes)
	}
	return &g.arena[:cap(g.arena)][len(g.arena)], int32(cap(g.arena) - len(g.arena))
}

// receive turns the answer to a request with room into a value.
func (g *guestHost) receive(answer int64, size int32) (value []byte, found bool, err error) {
	if answer < 0 {
		if answer == answerAbsent {
			return nil, false, nil
		}
		return nil, false, g.refusal(answer)
	}
	if answer > int64(size) {
		value = make([]byte, answer)
		hostFetch(&value[0])
		return value, true, nil
	}
	start := len(g.arena)
	end := start + int(answer)
	g.arena = g.arena[:end]
	return g.arena[start:end:end], true, nil
}

// refusal returns the error for a negative answer.
func (g *guestHost) refusal(answer int64) error {
	if answer == answerOver {
		return ErrOver
	}
	buf, size := g.room()
	text, _, err := g.receive(hostLastError(buf, size), size)
	if err != nil {
		return err
	}
	return errors.New(string(text))
}

func (g *guestHost) done(answer int32) error {
	if answer == 0 {
		return nil
	}
	return g.refusal(int64(answer))
}

func (g *guestHost) Get(table, key string) ([]byte, bool, error) {
	buf, size := g.room()
	return g.receive(hostGet(table, key, buf, size), size)
}

func (g *guestHost) Put(table, key string, value []byte) error {
	return g.done(hostPut(table, key, first(value), int32(len(value))))
}

func (g *guestHost) Delete(table, key string) error { return g.done(hostDelete(table, key)) }

func (g *guestHost) Add(table, key string, delta int64) error {
	return g.done(hostAdd(table, key, delta))
}

func (g *guestHost) Scan(table, prefix string, limit int) ([]Entry, error) {
	buf, size := g.room()
	data, _, err := g.receive(hostScan(table, prefix, int32(limit), buf, size), size)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, binary.LittleEndian.Uint32(data))
	data = data[4:]
	for i := range entries {
		var key []byte
		key, data = nextField(data)
		entries[i].Key = string(key)
		entries[i].Value, data = nextField(data)
	}
	return entries, nil
}

// nextField takes a length and that many bytes off data.
func nextField(data []byte) (field, rest []byte) {
	n := binary.LittleEndian.Uint32(data)
	return data[4 : 4+n : 4+n], data[4+n:]
}

func (g *guestHost) Call(function, handler string, input []byte) ([]byte, error) {
	buf, size := g.room()
	output, _, err := g.receive(hostCall(function, handler, first(input), int32(len(input)), buf, size), size)
	return output, err
}

func (g *guestHost) Result(step string) ([]byte, bool) {
	buf, size := g.room()
	output, found, err := g.receive(hostResult(step, buf, size), size)
	return output, found && err == nil
}

func (g *guestHost) Abort(reason string) { hostAbort(reason) }

func (g *guestHost) Now() time.Time { return time.Unix(0, hostNow()) }

func (g *guestHost) Rand() uint64 { return uint64(hostRand()) }

func (g *guestHost) Log(message string) { hostLog(message) }

func (g *guestHost) InvocationID() string {
	var id [26]byte
	hostInvocation(&id[0])
	return string(id[:])
}
