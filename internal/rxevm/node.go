package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// node is one virtual machine.
type node struct {
	// number counts from 1.
	number int
	cmd    *exec.Cmd
	// console is what the machine prints on its serial line, and QEMU on its
	// standard error.
	console *os.File
	// aborted is set before the machine is killed from outside.
	aborted atomic.Bool
	// mortal says that the machine is to end while the payload runs: it is killed
	// from inside, as by a loss of power.
	mortal bool
	// result is set when wait returns.
	result result
}

// result is how a node ended.
type result struct {
	// ready is when the payload started, and ended when it exited or the machine
	// was gone, both since the start; ready is zero if it did not come to that.
	ready, ended time.Duration
	// exited says that the payload did, with status.
	exited bool
	status int
	// failure says why the machine did not come up.
	failure string
	// aborted says that the machine was killed because another node failed, the
	// time was over, or the run was interrupted.
	aborted bool
	// mortal says that the machine was to end while the payload ran.
	mortal bool
}

func (r result) ok() bool {
	if r.mortal {
		return r.died() && r.ready > 0
	}
	return r.exited && r.status == 0
}

// died says that the machine ended of itself: nobody here ended it, and its
// payload had not exited.
func (r result) died() bool { return !r.exited && r.failure == "" && !r.aborted }

// String says in a few words how the node ended.
func (r result) String() string {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
	switch {
	case r.exited && r.status == 0 && r.mortal:
		return fmt.Sprintf("exit 0 after %s, but was to die (--dies)", seconds(r.ended))
	case r.mortal && r.ok():
		return fmt.Sprintf("died as it should (payload from %s to %s)", seconds(r.ready), seconds(r.ended))
	case r.exited && r.status == 0:
		return fmt.Sprintf("exit 0 (payload from %s to %s)", seconds(r.ready), seconds(r.ended))
	case r.exited:
		return fmt.Sprintf("exit %d after %s", r.status, seconds(r.ended))
	case r.failure != "":
		return fmt.Sprintf("did not come up: %s", r.failure)
	case r.aborted && r.ready == 0:
		return fmt.Sprintf("was ended after %s, before the payload started", seconds(r.ended))
	case r.aborted:
		return fmt.Sprintf("was ended after %s, while the payload ran", seconds(r.ended))
	case r.ready == 0:
		return fmt.Sprintf("died after %s, before the payload started", seconds(r.ended))
	}
	return fmt.Sprintf("died after %s, while the payload ran", seconds(r.ended))
}

// machine is what the commands of all nodes have in common.
type machine struct {
	qemu   string
	image  string
	memory int
	cpus   int
	nodes  int
	token  string
	// clock are the kernel's parameters for its clock.
	clock []string
}

// command returns the QEMU command of a node (from 1), which inherits the RAM
// disk and so many sockets. Only the emulator is used: with it a run goes the
// same way on every machine.
func (m machine) command(n, sockets int) []string {
	const initrdFile, firstSocket = 3, 4 // as start orders them
	var fds []int
	for i := range sockets {
		fds = append(fds, firstSocket+i)
	}
	kernelLine := append([]string{
		"console=ttyS0", "quiet",
		"panic=-1", // at once; with -no-reboot that ends the machine
		// A guest under load misses ticks, and the kernel's check of its timer
		// then takes that for a fault and panics.
		"no_timer_check",
		"mitigations=off", "random.trust_cpu=on",
		// What the kernel does not know it gives to init as its environment.
		"NODE=" + strconv.Itoa(n), "NODES=" + strconv.Itoa(m.nodes), "IP=" + subnet + strconv.Itoa(n), "RXEVM_TOKEN=" + m.token,
	}, m.clock...)
	return append([]string{
		m.qemu, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", strconv.Itoa(m.cpus), "-m", strconv.Itoa(m.memory),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-kernel", m.image, "-initrd", fmt.Sprintf("/dev/fd/%d", initrdFile), "-append", strings.Join(kernelLine, " "),
	}, networkArguments(n, fds)...)
}

// start starts a machine, which dies with the calling thread.
func start(number int, command []string, inherited ...*os.File) (*node, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = write, write, inherited
	cmd.SysProcAttr = confine()
	err = cmd.Start()
	if err = errors.Join(err, write.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start node %d: %w", number, err), read.Close())
	}
	return &node{number: number, cmd: cmd, console: read}, nil
}

// abort ends the machine because of something else than its payload.
func (n *node) abort() {
	n.aborted.Store(true)
	n.kill()
}

// kill ends the machine, which may be gone already.
func (n *node) kill() { _ = n.cmd.Process.Kill() }

// wait shows the console, and keeps it in log, until the machine is gone, and
// sets the result. A machine whose payload has exited with 0 stays up, for the
// others may still talk to it; wait calls done once then, or when the machine is
// gone.
func (n *node) wait(token string, began time.Time, out *printer, log io.Writer, done func()) {
	done = sync.OnceFunc(done)
	n.result.mortal = n.mortal
	blank := 0 // lines not shown yet: init begins a new one before it tells something
	err := readConsole(io.TeeReader(n.console, log), token, func(e event) bool {
		switch {
		case e.kind == eventReady:
			n.result.ready = time.Since(began)
		case e.kind == eventExit:
			n.result.exited, n.result.status, n.result.ended = true, e.status, time.Since(began)
			done()
			return e.status == 0
		case e.kind == eventFailed:
			n.result.failure = e.text
			return false
		case e.text == "":
			blank++
			return true
		default:
			for ; blank > 0; blank-- {
				out.line(n.number, "")
			}
			out.line(n.number, e.text)
		}
		blank = 0
		return true
	})
	if err != nil {
		out.line(n.number, "console: "+err.Error())
	}
	n.result.aborted = n.aborted.Load()
	n.kill()
	_ = n.cmd.Wait() // how QEMU exits says nothing
	_ = n.console.Close()
	if !n.result.exited {
		n.result.ended = time.Since(began)
	}
	done()
}
