package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero/api"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/runtime"
)

// Answers to a guest that are not lengths. See sdk/go for the other side of the ABI.
const (
	answerAbsent  = -1
	answerOver    = -2 // the attempt is over
	answerRefused = -3 // last_error says why
)

// transactionImports returns the host module "tenure", version 1 of the ABI. Every text and value is a pointer and a
// length; a function that gives bytes takes a buffer and its size, answers the length, and keeps bytes that did not fit
// for fetch. All but the transaction's methods are refused during the start, when there is no transaction.
func transactionImports() []importedFunction {
	function := func(name, params, results string, run func(*instance, api.Memory, []uint64)) importedFunction {
		return importedFunction{importName{"tenure", name}, types(params), types(results), inCall(name, run)}
	}
	return []importedFunction{
		function("input", "i", "", hostInput),
		function("field", "iiii", "I", hostField),
		function("output", "ii", "", hostOutput),
		function("fail", "ii", "", hostFail),
		function("abort", "ii", "", hostAbort),
		function("get", "iiiiii", "I", hostGet),
		function("fetch", "i", "", hostFetch),
		function("get_int", "iiiii", "i", hostGetInt),
		function("put", "iiiiii", "i", hostPut),
		function("put_int", "iiiiI", "i", hostPutInt),
		function("delete", "iiii", "i", hostDelete),
		function("add", "iiiiI", "i", hostAdd),
		function("scan", "iiiiiii", "I", hostScan),
		function("call", "iiiiiiii", "I", hostCall),
		function("result", "iiii", "I", hostResult),
		function("now", "", "I", hostNow),
		function("rand", "", "I", hostRand),
		function("log", "ii", "", hostLog),
		function("invocation", "i", "", hostInvocation),
		function("last_error", "ii", "I", hostLastError),
	}
}

// inCall refuses a host function outside of a handler.
func inCall(name string, run func(*instance, api.Memory, []uint64)) func(*instance, api.Memory, []uint64) {
	return func(in *instance, memory api.Memory, stack []uint64) {
		if in.host == nil {
			panic(&ruleError{name + " was called while the module starts, before any handler runs"})
		}
		run(in, memory, stack)
	}
}

func hostInput(in *instance, memory api.Memory, stack []uint64) {
	write(memory, stack[0], in.input, "input")
}

func hostOutput(in *instance, memory api.Memory, stack []uint64) {
	if uint32(stack[1]) > maxBodyBytes {
		panic(&ruleError{fmt.Sprintf("the output has %d bytes, the limit is %d", uint32(stack[1]), maxBodyBytes)})
	}
	in.output = append([]byte{}, view(memory, stack[0], stack[1], "output")...)
}

func hostFail(in *instance, memory api.Memory, stack []uint64) {
	in.failure = cut(view(memory, stack[0], stack[1], "fail"), maxReasonBytes)
}

func hostAbort(in *instance, memory api.Memory, stack []uint64) {
	reason := cut(view(memory, stack[0], stack[1], "abort"), maxReasonBytes)
	if !in.aborted {
		in.aborted, in.reason = true, reason
	}
	in.inHost = true
	in.host.Abort(in.reason)
	in.inHost = false
}

func hostGet(in *instance, memory api.Memory, stack []uint64) {
	table, key, ok := in.key(memory, stack, "get")
	if !ok {
		refuseLong(stack)
		return
	}
	in.inHost = true
	value, found, err := in.host.Get(table, key)
	in.inHost = false
	in.give(memory, stack, 4, value, found, err)
}

func hostFetch(in *instance, memory api.Memory, stack []uint64) {
	if in.pending == nil {
		panic(&ruleError{"fetch: nothing is left to fetch"})
	}
	write(memory, stack[0], in.pending, "fetch")
}

func hostPut(in *instance, memory api.Memory, stack []uint64) {
	table, key, ok := in.key(memory, stack, "put")
	value := view(memory, stack[4], stack[5], "put")
	if len(value) > maxBodyBytes {
		in.refusal = fmt.Sprintf("put %s/%s: the value has %d bytes, the limit is %d", table, key, len(value), maxBodyBytes)
		ok = false
	}
	if !ok {
		refuseShort(stack)
		return
	}
	in.inHost = true
	err := in.host.Put(table, key, value)
	in.inHost = false
	in.answer(stack, err)
}

// hostGetInt is get for a decimal integer, 0 if the key is absent. It saves the guest from parsing.
func hostGetInt(in *instance, memory api.Memory, stack []uint64) {
	table, key, ok := in.key(memory, stack, "get_int")
	result := view(memory, stack[4], 8, "get_int")
	if !ok {
		refuseShort(stack)
		return
	}
	in.inHost = true
	value, found, err := in.host.Get(table, key)
	in.inHost = false
	var n int64
	if err == nil && found {
		if n, ok = parseInt(value); !ok {
			in.refusal = table + "/" + key + " is not a decimal 64-bit integer"
			refuseShort(stack)
			return
		}
	}
	binary.LittleEndian.PutUint64(result, uint64(n))
	in.answer(stack, err)
}

// parseInt reads a decimal integer as the SDK does: without a plus sign.
func parseInt(value []byte) (int64, bool) {
	if len(value) == 0 || value[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	return n, err == nil
}

// hostPutInt is put of a decimal integer.
func hostPutInt(in *instance, memory api.Memory, stack []uint64) {
	table, key, ok := in.key(memory, stack, "put_int")
	if !ok {
		refuseShort(stack)
		return
	}
	in.inHost = true
	err := in.host.Put(table, key, strconv.AppendInt(in.scratch[:0], int64(stack[4]), 10))
	in.inHost = false
	in.answer(stack, err)
}

func hostDelete(in *instance, memory api.Memory, stack []uint64) {
	table, key, ok := in.key(memory, stack, "delete")
	if !ok {
		refuseShort(stack)
		return
	}
	in.inHost = true
	err := in.host.Delete(table, key)
	in.inHost = false
	in.answer(stack, err)
}

func hostAdd(in *instance, memory api.Memory, stack []uint64) {
	table, key, ok := in.key(memory, stack, "add")
	if !ok {
		refuseShort(stack)
		return
	}
	in.inHost = true
	err := in.host.Add(table, key, int64(stack[4]))
	in.inHost = false
	in.answer(stack, err)
}

func hostScan(in *instance, memory api.Memory, stack []uint64) {
	table, prefix, ok := in.key(memory, stack, "scan")
	if !ok {
		refuseLong(stack)
		return
	}
	in.inHost = true
	entries, err := in.host.Scan(table, prefix, max(0, int(int32(stack[4]))))
	in.inHost = false
	var data []byte
	if err == nil {
		data = encodeEntries(entries)
	}
	in.give(memory, stack, 5, data, true, err)
}

// encodeEntries lays entries out one behind the other: their count, then for each the length of the key, the key, the
// length of the value, the value; numbers are 32 bits, little endian.
func encodeEntries(entries []runtime.Entry) []byte {
	size := 4
	for _, e := range entries {
		size += 8 + len(e.Key) + len(e.Value)
	}
	data := binary.LittleEndian.AppendUint32(make([]byte, 0, size), uint32(len(entries)))
	for _, e := range entries {
		data = append(binary.LittleEndian.AppendUint32(data, uint32(len(e.Key))), e.Key...)
		data = append(binary.LittleEndian.AppendUint32(data, uint32(len(e.Value))), e.Value...)
	}
	return data
}

func hostCall(in *instance, memory api.Memory, stack []uint64) {
	function := in.name(memory, stack[0], stack[1], "call")
	handler := in.name(memory, stack[2], stack[3], "call")
	input := view(memory, stack[4], stack[5], "call")
	if len(input) > maxBodyBytes {
		in.refusal = fmt.Sprintf("call %s/%s: the input has %d bytes, the limit is %d", function, handler, len(input), maxBodyBytes)
		refuseLong(stack)
		return
	}
	in.inHost = true
	output, err := in.host.Call(function, handler, input)
	in.inHost = false
	in.give(memory, stack, 6, output, true, err)
}

func hostResult(in *instance, memory api.Memory, stack []uint64) {
	step := in.name(memory, stack[0], stack[1], "result")
	in.inHost = true
	output, found := in.host.Result(step)
	in.inHost = false
	in.give(memory, stack, 2, output, found, nil)
}

func hostNow(in *instance, _ api.Memory, stack []uint64) {
	in.inHost = true
	now := in.host.Now()
	in.inHost = false
	stack[0] = uint64(now.UnixNano())
}

func hostRand(in *instance, _ api.Memory, stack []uint64) {
	in.inHost = true
	stack[0] = in.host.Rand()
	in.inHost = false
}

func hostLog(in *instance, memory api.Memory, stack []uint64) {
	in.log(cut(view(memory, stack[0], stack[1], "log"), maxLineBytes))
}

func hostInvocation(in *instance, memory api.Memory, stack []uint64) {
	in.inHost = true
	id := in.host.InvocationID().String()
	in.inHost = false
	write(memory, stack[0], []byte(id), "invocation")
}

func hostLastError(in *instance, memory api.Memory, stack []uint64) {
	in.give(memory, stack, 0, []byte(in.refusal), true, nil)
}

// key reads a table and a key, or the prefix of one, from the first four arguments. ok is false if one is too long for
// any transaction; refusal says so. The key of the call before is not copied again: many handlers read it and write it.
func (in *instance) key(memory api.Memory, stack []uint64, what string) (table, key string, ok bool) {
	bytes := view(memory, stack[2], stack[3], what)
	table = in.name(memory, stack[0], stack[1], what)
	if len(bytes) > base.MaxKeyBytes {
		in.refusal = fmt.Sprintf("%s: a key in table %q has %d bytes, the limit is %d", what, table, len(bytes), base.MaxKeyBytes)
		return table, "", false
	}
	if string(bytes) != in.lastKey {
		in.lastKey = string(bytes)
	}
	return table, in.lastKey, true
}

// name reads the name of a table, function, handler or step. One that is too long to be valid is cut, to a length that
// the transaction refuses. The few names that a handler uses again and again are not copied each time.
func (in *instance) name(memory api.Memory, address, size uint64, what string) string {
	bytes := view(memory, address, size, what)
	for _, known := range in.names {
		if string(bytes) == known {
			return known
		}
	}
	name := string(bytes[:min(len(bytes), base.MaxNameBytes+1)])
	in.names[in.nextName] = name
	in.nextName = (in.nextName + 1) % len(in.names)
	return name
}

// give answers a request for bytes whose buffer and size are the arguments at i and i+1.
func (in *instance) give(memory api.Memory, stack []uint64, i int, data []byte, found bool, err error) {
	switch {
	case err != nil:
		stack[0] = uint64(in.negative(err))
		return
	case !found:
		stack[0] = negative(answerAbsent)
		return
	}
	buf, size := stack[i], uint32(stack[i+1])
	in.pending = nil
	if len(data) <= int(size) {
		write(memory, buf, data, "buffer")
	} else {
		in.pending = data
	}
	stack[0] = uint64(len(data))
}

// answer answers a request that has no result.
func (in *instance) answer(stack []uint64, err error) {
	stack[0] = 0
	if err != nil {
		stack[0] = uint64(uint32(in.negative(err)))
	}
}

// negative turns an error of the transaction into an answer. Only its text is for the guest: what follows from it, the
// transaction knows.
func (in *instance) negative(err error) int64 {
	if errors.Is(err, runtime.ErrAttemptOver) {
		return answerOver
	}
	in.refusal = err.Error()
	return answerRefused
}

func negative(answer int64) uint64 { return uint64(answer) }

func refuseLong(stack []uint64) { stack[0] = negative(answerRefused) }

func refuseShort(stack []uint64) { stack[0] = uint64(uint32(negative(answerRefused))) }

// cut returns a text that the guest wrote, bounded and as valid UTF-8.
func cut(text []byte, limit int) string {
	return strings.ToValidUTF8(string(text[:min(len(text), limit)]), "\ufffd")
}
