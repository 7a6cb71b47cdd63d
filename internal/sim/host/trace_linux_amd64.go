package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// atRandom is the entry of the auxiliary vector with the address of 16 random
	// bytes (getauxval(3)).
	atRandom = 25
	// noRandomAddresses is ADDR_NO_RANDOMIZE of personality(2).
	noRandomAddresses = 0x0040000
	// syscallStop is the signal of a stop at a system call, with
	// PTRACE_O_TRACESYSGOOD.
	syscallStop = unix.SIGTRAP | 0x80
)

// environment is what the runtime needs to replay. Memory grows without bound in
// theory; a simulation that needs a gigabyte has gone wrong.
var environment = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=1GiB", "GODEBUG=asyncpreemptoff=1", "TZ=UTC"}

// trace runs the program once and waits for its end; it copies what it prints to
// out. When ctx ends it is killed.
func (r *Runner) trace(ctx context.Context, seed uint64, args, variables []string, out io.Writer) (e ended, err error) {
	printed, printing, err := os.Pipe()
	if err != nil {
		return e, err
	}
	defer printed.Close() //nolint:errcheck // read to its end
	complained, complaining, err := os.Pipe()
	if err != nil {
		return e, errors.Join(err, printing.Close())
	}
	defer complained.Close() //nolint:errcheck // read to its end
	// One thread must make all calls of ptrace, and its personality is the child's.
	runtime.LockOSThread()
	t := tracer{argv: append([]string{r.path, strconv.FormatUint(seed, 10)}, args...), env: append(append([]string{}, environment...), variables...), seed: seed}
	err = t.start(printing, complaining)
	err = errors.Join(err, printing.Close(), complaining.Close())
	if err != nil && t.pid == 0 {
		return e, err // the thread ends with the goroutine
	}
	var copying sync.WaitGroup
	var copyErr error
	copying.Go(func() { _, copyErr = io.Copy(out, printed) })
	copying.Go(func() { _, _ = io.Copy(stamps{&e.stderr}, complained) }) // a tail takes all
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(t.pid, unix.SIGKILL) })
	status, followErr := t.follow(err)
	stop()
	copying.Wait()
	runtime.UnlockOSThread()
	switch {
	case status.Exited():
		e.status = status.ExitStatus()
	case status.Signaled():
		e.status = 128 + int(status.Signal())
	}
	return e, errors.Join(err, followErr, copyErr)
}

// tracer is one process that is traced.
type tracer struct {
	argv, env []string
	seed      uint64
	pid       int
	// monitor is the runtime's monitor thread: the first that it makes. Its maker
	// waits until it is held.
	monitor, maker int
	held           bool
}

// start starts the process and seeds it. With an error and a pid it is to be
// followed all the same, to its death.
func (t *tracer) start(printing, complaining *os.File) error {
	// A program whose output waits for us should stand still meanwhile.
	if err := unix.SetNonblock(int(printing.Fd()), false); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	old, _, errno := unix.Syscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	if errno != 0 {
		return fmt.Errorf("personality: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_PERSONALITY, old|noRandomAddresses, 0, 0); errno != 0 {
		return fmt.Errorf("personality: %w", errno)
	}
	pid, err := syscall.ForkExec(t.argv[0], t.argv, &syscall.ProcAttr{
		Env: t.env, Files: []uintptr{complaining.Fd(), complaining.Fd(), complaining.Fd(), printing.Fd()}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	_, _, _ = unix.Syscall(unix.SYS_PERSONALITY, old, 0, 0) // it was set a moment ago
	if err != nil {
		return fmt.Errorf("start %s: %w", t.argv[0], err)
	}
	t.pid = pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		return fmt.Errorf("wait for the first stop of %s: %w, status %x", t.argv[0], err, status)
	}
	if err := t.sow(); err != nil {
		return err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return fmt.Errorf("ptrace: %w", err)
	}
	return unix.PtraceCont(pid, 0)
}

// sow overwrites the random bytes that the kernel has given the process.
func (t *tracer) sow() error {
	vector, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", t.pid))
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(t.seed, atRandom))
	seed := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, rng.Uint64()|1), rng.Uint64()|1)
	for ; len(vector) >= 16; vector = vector[16:] {
		if binary.LittleEndian.Uint64(vector) == atRandom {
			_, err := unix.PtracePokeData(t.pid, uintptr(binary.LittleEndian.Uint64(vector[8:])), seed)
			return err
		}
	}
	return errors.New("the kernel gives no random bytes")
}

// follow lets the process run to its end, and holds its monitor. If there was an
// error before, it kills the process first.
func (t *tracer) follow(before error) (unix.WaitStatus, error) {
	if before != nil {
		_ = unix.Kill(t.pid, unix.SIGKILL)
	}
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return status, fmt.Errorf("wait for %s: %w", t.argv[0], err)
		case !status.Stopped():
			if tid == t.pid {
				return status, nil
			}
		default:
			// A thread that was killed meanwhile cannot be continued, and its end comes.
			_ = t.stopped(tid, status)
		}
	}
}

// stopped decides how a thread that has stopped goes on. The first stop of a new
// thread may be told before that of its maker.
func (t *tracer) stopped(tid int, status unix.WaitStatus) error {
	if t.monitor == 0 && tid != t.pid {
		t.monitor = tid
	}
	switch signal := status.StopSignal(); {
	case status.TrapCause() == unix.PTRACE_EVENT_CLONE:
		made, err := unix.PtraceGetEventMsg(tid)
		if err == nil && t.monitor == 0 {
			t.monitor = int(made)
		}
		if err == nil && t.monitor == int(made) && !t.held {
			t.maker = tid
			return nil // until the monitor is held
		}
		return unix.PtraceCont(tid, 0)
	case tid == t.monitor && !t.held:
		var registers unix.PtraceRegs
		if err := unix.PtraceGetRegs(tid, &registers); err != nil {
			return err
		}
		if signal != syscallStop || registers.Orig_rax != unix.SYS_NANOSLEEP {
			return unix.PtraceSyscall(tid, 0)
		}
		t.held = true // it sleeps from now on
		if t.maker == 0 {
			return nil // its stop is still to be told
		}
		return unix.PtraceCont(t.maker, 0)
	case signal == unix.SIGWINCH: // inside.settle
		if err := t.rest(tid); err != nil {
			return err
		}
		return unix.PtraceCont(tid, 0)
	case signal == unix.SIGSTOP || signal == unix.SIGTRAP || signal == syscallStop:
		return unix.PtraceCont(tid, 0)
	default:
		return unix.PtraceCont(tid, int(signal))
	}
}

// restTries and restPause bound how long the threads of a process may take to come
// to rest.
const (
	restTries = 100_000
	restPause = 50 * time.Microsecond
)

// rest waits until all other threads sleep or are held.
func (t *tracer) rest(but int) error {
	for range restTries {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", t.pid))
		if err != nil {
			return err
		}
		busy := false
		for _, task := range tasks {
			if task.Name() == strconv.Itoa(but) {
				continue
			}
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", t.pid, task.Name()))
			if err != nil {
				return err
			}
			_, state, _ := bytes.Cut(stat, []byte(") ")) // proc_pid_stat(5)
			busy = busy || len(state) == 0 || state[0] != 'S' && state[0] != 't'
		}
		if !busy {
			return nil
		}
		time.Sleep(restPause)
	}
	return errors.New("the threads of the program do not come to rest")
}
