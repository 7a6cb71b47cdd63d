package leasemgr

import (
	"context"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/lease"
	"github.com/tenure-faas/tenure/leasemgr/membership"
)

// JoinRequest asks for the membership of one run of a worker process.
type JoinRequest = membership.Instance

// Nonce names one run of a process.
type Nonce = membership.Nonce

// Peer is a member as others see it.
type Peer = membership.Member

// Published is a view that all may use: the store is sealed for it.
type Published struct {
	// View is its number; 0 means that the manager has published none since its
	// start, which says nothing about membership.
	View base.View
	// Members are its members, by number. The slice is shared: do not change it.
	Members []Peer
	// TTL is the life of a membership, from the moment at which the renewal was
	// sent.
	TTL time.Duration
	// Evicted says that the asking member is none any more, and never will be again.
	// View and Members may be of a time before this.
	Evicted bool
	// Unextended says that the renewal did not extend the membership: see
	// RenewRequest.Silence.
	Unextended bool
	// Yield asks the member to leave at once: between it and another member there is
	// no link, and what both want waits. It is not extended any more.
	Yield bool
}

// Lease returns the view in the form that the lease protocol uses, with homes.
func (p *Published) Lease() (*lease.Members, error) {
	all := make([]lease.Member, len(p.Members))
	for i := range p.Members {
		all[i] = p.Members[i].Member
	}
	return lease.NewMembers(p.View, all)
}

// Admission is the answer to a Join.
type Admission struct {
	// Member has the number and incarnation of who has joined.
	Member lease.Member
	// Published is a view of which it is a member.
	Published
}

// RenewRequest extends a membership and asks for news.
type RenewRequest struct {
	// Member is who is alive.
	Member lease.Member
	// Known is the view that it knows.
	Known base.View
	// Wait is how long the answer may be held back while there is no later view than
	// Known; at most half a TTL is granted. 0: answer at once. The renewal counts
	// from the arrival of the request.
	Wait time.Duration
	// Silence is 0 if the renewal before this one was answered. Else that was given
	// up, so that an answer that still comes is never used, and this is how long before
	// this one the last that was answered was sent. A renewal after a long silence does
	// not extend the membership; once its answer was heard, the next one does. So the
	// leasemgr does not keep a member alive that it hears and that hears nothing.
	Silence time.Duration
	// Unreachable are the members to which this one has no link, for some time.
	Unreachable []lease.Member
}

// Registry is the leasemgr as its members use it: a *Manager in the same
// process, or a *Client. It is safe for concurrent use.
type Registry interface {
	// Join asks for membership and blocks until a view with the member is published.
	// Repeated with the same nonce it returns the same admission, so that it is safe
	// to repeat when the outcome is unknown; each answer counts as a renewal. Errors
	// are Invalid; Precondition: this instance is out for ever, join with a new
	// nonce; Unavailable: another instance of the name lives, or the manager cannot
	// be reached, try again after RetryAfter; Overloaded; Timeout at the end of ctx.
	Join(ctx context.Context, r JoinRequest) (Admission, error)
	// Renew extends a membership, but not after a long Silence. A member that is out gets
	// Evicted, not an error.
	// Errors, Unavailable, Overloaded and Timeout, say nothing about membership.
	Renew(ctx context.Context, r RenewRequest) (Published, error)
	// Leave announces that a member goes and blocks until a view without it is
	// published. The member must have stopped to use what it holds before. It is safe
	// to repeat. NotFound means that there never was such a member.
	Leave(ctx context.Context, m lease.Member) error
}

// State is the membership as operators see it.
type State struct {
	// Published is the view that all may use.
	Published
	// Decided is the last view decided: Published.View, or a later one that waits
	// for the seal of the store.
	Decided base.View
	// Reports are the members of Decided, by number.
	Reports []membership.Report
	// Joining has the names of those who wait for admission, sorted.
	Joining []string
}
