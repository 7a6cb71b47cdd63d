package wasm

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf16"

	"github.com/tetratelabs/wazero/api"
)

// Error numbers of WASI preview 1.
const (
	wasiOK      = 0
	wasiBadFile = 8
	wasiInvalid = 28
	wasiNoSys   = 52
)

// Limits of WASI calls, which keep each below a few milliseconds.
const (
	maxSleep         = time.Millisecond
	maxRandomBytes   = 1 << 20
	maxVectors       = 1 << 10
	maxSubscriptions = 64
)

// wasiImports returns WASI preview 1 as far as a function needs it, and env.abort, by which AssemblyScript reports a
// crash.
//
// It is our own because the engine's implementation serves programs with files: there a guest can make the host allocate
// (fd_renumber), close what the next call needs, and sleep or draw random numbers past its deadline. Here no call
// changes any state. What works on files answers "bad file", and other functions "not supported".
func wasiImports() []importedFunction {
	function := func(name, params string, run func(*instance, api.Memory, []uint64) uint64) importedFunction {
		return importedFunction{importName{"wasi_snapshot_preview1", name}, types(params), types("i"),
			func(in *instance, memory api.Memory, stack []uint64) { stack[0] = run(in, memory, stack) }}
	}
	all := []importedFunction{
		function("args_get", "ii", wasiNothing),
		function("args_sizes_get", "ii", wasiNoStrings),
		function("environ_get", "ii", wasiNothing),
		function("environ_sizes_get", "ii", wasiNoStrings),
		function("clock_res_get", "ii", wasiClockResolution),
		function("clock_time_get", "iIi", wasiClock),
		function("fd_fdstat_get", "ii", wasiFileStatus),
		function("fd_fdstat_set_flags", "ii", wasiStandardFile),
		function("fd_read", "iiii", wasiRead),
		function("fd_write", "iiii", wasiWrite),
		function("poll_oneoff", "iiii", wasiPoll),
		function("random_get", "ii", wasiRandom),
		function("sched_yield", "", wasiNothing),
		{importName{"wasi_snapshot_preview1", "proc_exit"}, types("i"), nil, wasiExit},
		{importName{"env", "abort"}, types("iiii"), nil, assemblyScriptAbort},
	}
	for name, params := range map[string]string{
		"fd_advise": "iIIi", "fd_allocate": "iII", "fd_close": "i", "fd_datasync": "i", "fd_fdstat_set_rights": "iII",
		"fd_filestat_get": "ii", "fd_filestat_set_size": "iI", "fd_filestat_set_times": "iIIi", "fd_pread": "iiiIi",
		"fd_prestat_get": "ii", "fd_prestat_dir_name": "iii", "fd_pwrite": "iiiIi", "fd_readdir": "iiiIi",
		"fd_renumber": "ii", "fd_seek": "iIii", "fd_sync": "i", "fd_tell": "ii", "path_create_directory": "iii",
		"path_filestat_get": "iiiii", "path_filestat_set_times": "iiiiIIi", "path_link": "iiiiiii",
		"path_open": "iiiiiIIii", "path_readlink": "iiiiii", "path_remove_directory": "iii", "path_rename": "iiiiii",
		"path_symlink": "iiiii", "path_unlink_file": "iii",
	} {
		all = append(all, function(name, params, wasiBadDescriptor))
	}
	for name, params := range map[string]string{
		"proc_raise": "i", "sock_accept": "iii", "sock_recv": "iiiiii", "sock_send": "iiiii", "sock_shutdown": "ii",
	} {
		all = append(all, function(name, params, wasiUnsupported))
	}
	return all
}

func wasiNothing(*instance, api.Memory, []uint64) uint64 { return wasiOK }

func wasiBadDescriptor(*instance, api.Memory, []uint64) uint64 { return wasiBadFile }

func wasiUnsupported(*instance, api.Memory, []uint64) uint64 { return wasiNoSys }

// wasiNoStrings answers how many arguments or variables there are, and their size.
func wasiNoStrings(_ *instance, memory api.Memory, stack []uint64) uint64 {
	writeUint32(memory, stack[0], 0)
	writeUint32(memory, stack[1], 0)
	return wasiOK
}

func wasiClockResolution(_ *instance, memory api.Memory, stack []uint64) uint64 {
	writeUint64(memory, stack[1], 1)
	return wasiOK
}

// wasiClock answers the real time: Context.Now is for times that should not differ between attempts.
func wasiClock(in *instance, memory api.Memory, stack []uint64) uint64 {
	const realtime, monotonic = 0, 1
	switch uint32(stack[0]) {
	case realtime:
		writeUint64(memory, stack[2], uint64(time.Now().UnixNano()))
	case monotonic:
		writeUint64(memory, stack[2], uint64(in.monotonic()))
	default:
		return wasiInvalid
	}
	return wasiOK
}

// monotonic returns the guest's monotonic clock, which never shows 0.
func (in *instance) monotonic() time.Duration { return time.Since(in.bundle.runtime.started) + 1 }

func wasiStandardFile(_ *instance, _ api.Memory, stack []uint64) uint64 {
	if uint32(stack[0]) > 2 {
		return wasiBadFile
	}
	return wasiOK
}

func wasiFileStatus(_ *instance, memory api.Memory, stack []uint64) uint64 {
	const characterDevice, rightToRead, rightToWrite = 2, 1 << 1, 1 << 6
	file := uint32(stack[0])
	if file > 2 {
		return wasiBadFile
	}
	rights := uint64(rightToWrite)
	if file == 0 {
		rights = rightToRead
	}
	var status [24]byte // type, flags at 2, rights at 8, inherited rights at 16
	status[0] = characterDevice
	binary.LittleEndian.PutUint64(status[8:], rights)
	write(memory, stack[1], status[:], "fd_fdstat_get")
	return wasiOK
}

// wasiRead answers the end of the file for standard input.
func wasiRead(_ *instance, memory api.Memory, stack []uint64) uint64 {
	if uint32(stack[0]) != 0 {
		return wasiBadFile
	}
	writeUint32(memory, stack[3], 0)
	return wasiOK
}

func wasiWrite(in *instance, memory api.Memory, stack []uint64) uint64 {
	file, count := uint32(stack[0]), uint32(stack[2])
	if file != 1 && file != 2 {
		return wasiBadFile
	}
	if count > maxVectors {
		return wasiInvalid
	}
	vectors := view(memory, stack[1], uint64(count)*8, "fd_write")
	var total uint32
	for ; len(vectors) > 0; vectors = vectors[8:] {
		address, size := binary.LittleEndian.Uint32(vectors), binary.LittleEndian.Uint32(vectors[4:])
		in.lines.write(in, int(file), view(memory, uint64(address), uint64(size), "fd_write"))
		total += size
	}
	writeUint32(memory, stack[3], total)
	return wasiOK
}

// wasiPoll sleeps until the first of the given times, but never long: a guest that wants to sleep longer asks again, and
// meets its deadline. Every subscription is reported, as an event too many is what a guest must be ready for.
func wasiPoll(in *instance, memory api.Memory, stack []uint64) uint64 {
	const subscriptionBytes, eventBytes = 48, 32
	count := uint32(stack[2])
	if count == 0 || count > maxSubscriptions {
		return wasiInvalid
	}
	subscriptions := view(memory, stack[0], uint64(count)*subscriptionBytes, "poll_oneoff")
	sleep := maxSleep
	events := make([]byte, int(count)*eventBytes) // user data, error at 8, type at 10
	for i := range int(count) {
		s := subscriptions[i*subscriptionBytes:][:subscriptionBytes]
		e := events[i*eventBytes:]
		copy(e, s[:8])
		e[10] = s[8]
		if s[8] == 0 {
			sleep = min(sleep, in.untilClock(s))
		} else {
			binary.LittleEndian.PutUint16(e[8:], wasiNoSys)
			sleep = 0
		}
	}
	if sleep > 0 {
		time.Sleep(sleep)
	}
	write(memory, stack[1], events, "poll_oneoff")
	writeUint32(memory, stack[3], count)
	return wasiOK
}

// untilClock returns the time until the clock of a subscription is due: clock at 16, time at 24, flags at 40.
func (in *instance) untilClock(subscription []byte) time.Duration {
	due := binary.LittleEndian.Uint64(subscription[24:])
	if absolute := subscription[40]&1 != 0; absolute {
		now := uint64(in.monotonic())
		if subscription[16] == 0 {
			now = uint64(time.Now().UnixNano())
		}
		if due <= now {
			return 0
		}
		due -= now
	}
	return time.Duration(min(due, uint64(maxSleep)))
}

func wasiRandom(_ *instance, memory api.Memory, stack []uint64) uint64 {
	if uint32(stack[1]) > maxRandomBytes {
		return wasiInvalid
	}
	// Read never fails: the process ends if the system has no randomness.
	_, _ = rand.Read(view(memory, stack[0], stack[1], "random_get"))
	return wasiOK
}

func wasiExit(in *instance, _ api.Memory, stack []uint64) {
	in.lines.flush(in)
	panic(&exitError{uint32(stack[0])})
}

// assemblyScriptAbort is called with a message, a file name, a line and a column. Strings are UTF-16 with their size in
// bytes in front.
func assemblyScriptAbort(in *instance, memory api.Memory, stack []uint64) {
	message, file := readString16(memory, stack[0]), readString16(memory, stack[1])
	text := fmt.Sprintf("panic: %s (%s:%d:%d)\n", message, file, uint32(stack[2]), uint32(stack[3]))
	in.lines.write(in, 2, []byte(text))
	panic(&exitError{1})
}

// readString16 returns a string of AssemblyScript, shortened if it is long; empty for null and nonsense.
func readString16(memory api.Memory, address uint64) string {
	size, ok := memory.ReadUint32Le(uint32(address) - 4)
	if !ok || uint32(address) < 4 {
		return ""
	}
	data, ok := memory.Read(uint32(address), min(size, maxCrashBytes/2)&^1)
	if !ok {
		return ""
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(data[2*i:])
	}
	return string(utf16.Decode(units))
}

func writeUint32(memory api.Memory, address uint64, v uint32) {
	binary.LittleEndian.PutUint32(view(memory, address, 4, "result"), v)
}

func writeUint64(memory api.Memory, address uint64, v uint64) {
	binary.LittleEndian.PutUint64(view(memory, address, 8, "result"), v)
}
