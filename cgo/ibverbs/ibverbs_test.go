package ibverbs

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		call    string
		errno   syscall.Errno
		memlock uint64
		want    string // part of the text; empty for no advice
	}{
		{"ibv_get_device_list", syscall.ENOSYS, Unlimited, "modprobe ib_uverbs"},
		{"ibv_open_device", syscall.EACCES, Unlimited, "chmod"},
		{"ibv_open_device", syscall.EPERM, Unlimited, "/dev/infiniband/uverbs"},
		{"ibv_open_device", syscall.ENOENT, Unlimited, "into the container"},
		{"ibv_reg_mr", syscall.ENOMEM, 64 << 10, "the limit is 64 KiB; raise it with: ulimit -l unlimited"},
		{"ibv_reg_mr", syscall.ENOMEM, Unlimited, "out of memory"},
		{"ibv_reg_mr", syscall.EINVAL, Unlimited, "region of this size"},
		{"ibv_create_cq", syscall.ENOMEM, 64 << 10, "ulimit -l"},
		{"ibv_create_qp", syscall.EINVAL, Unlimited, "shorter queues"},
		{"ibv_modify_qp to RTR", syscall.ETIMEDOUT, Unlimited, "ip neigh"},
		{"ibv_modify_qp to RTR", syscall.EINVAL, Unlimited, "ibv_devinfo"},
		{"ibv_poll_cq", syscall.EIO, Unlimited, "dmesg"},
		{"ibv_create_comp_channel", syscall.EMFILE, Unlimited, "ulimit -n"},
		{"ibv_destroy_qp", syscall.EBUSY, Unlimited, ""},
	} {
		err := error(&Error{c.call, c.errno, advise(c.call, c.errno, c.memlock)})
		text := err.Error()
		if !strings.HasPrefix(text, c.call+": "+c.errno.Error()) || !errors.Is(err, c.errno) {
			t.Errorf("%s does not say the call and its error", text)
		}
		if (c.want == "") != strings.HasSuffix(text, ")") || !strings.Contains(text, c.want) {
			t.Errorf("%q, want advice with %q", text, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for s := range statuses {
		if s.String() == "" {
			t.Errorf("status %d has no name", s)
		}
	}
	for want, got := range map[string]string{
		"retries exceeded":     RetryExceeded.String(),
		"RNR retries exceeded": RNRRetryExceeded.String(),
		"general":              General.String(),
		"status 22":            statuses.String(),
		"GID change":           EventGIDChange.String(),
		"port error":           EventPortError.String(),
		"event -1":             EventType(-1).String(),
		"ACTIVE":               PortActive.String(),
		"state 9":              PortState(9).String(),
		"HCA":                  AtomicDevice.String(),
		"Ethernet":             Ethernet.String(),
		"iWARP":                TransportIWARP.String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestMTU(t *testing.T) {
	for code, want := range map[MTU]int{0: 0, 1: 256, 2: 512, 3: 1024, 4: 2048, 5: 4096, 6: 0} {
		if got := code.Bytes(); got != want {
			t.Errorf("MTU code %d is %d bytes, want %d", code, got, want)
		}
	}
}
