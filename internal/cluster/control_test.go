package cluster

import (
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/leasemgr"
)

// TestOpenReplicaWaits starts a process before the leasemgr: nobody answers, or
// nobody in time.
func TestOpenReplicaWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []error{base.Errorf(base.Unavailable, "refused"), base.Errorf(base.Timeout, "silent"), nil}
		want := &leasemgr.Replica{}
		got, err := openReplica(t.Context(), slog.New(slog.DiscardHandler), func() (*leasemgr.Replica, error) {
			err := answers[0]
			if answers = answers[1:]; err != nil {
				return nil, err
			}
			return want, nil
		})
		if got != want || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// TestOpenReplicaFails does not try again when that is of no use.
func TestOpenReplicaFails(t *testing.T) {
	_, err := openReplica(t.Context(), slog.New(slog.DiscardHandler), func() (*leasemgr.Replica, error) {
		return nil, base.Errorf(base.Internal, "it cannot be read")
	})
	if base.KindOf(err) != base.Internal {
		t.Errorf("got %v", err)
	}
}
