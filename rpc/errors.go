package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/rpc/rpcpb"
)

// codeOf is the status code for tools that know gRPC but not our kinds.
func codeOf(k base.Kind) codes.Code {
	switch k {
	case base.Invalid, base.TooLarge, base.MethodNotAllowed:
		return codes.InvalidArgument
	case base.Unauthorized:
		return codes.Unauthenticated
	case base.Forbidden:
		return codes.PermissionDenied
	case base.NotFound:
		return codes.NotFound
	case base.InUse, base.Precondition, base.IdempotencyMismatch:
		return codes.FailedPrecondition
	case base.Aborted, base.Conflict:
		return codes.Aborted
	case base.Overloaded:
		return codes.ResourceExhausted
	case base.Unavailable:
		return codes.Unavailable
	case base.Timeout:
		return codes.DeadlineExceeded
	case base.Internal, base.FunctionError:
		return codes.Internal
	default:
		return codes.Internal
	}
}

// toStatus gives an error its form on the wire. The cause becomes part of the
// detail: it does not travel as a value.
func toStatus(err error) error {
	var e *base.Error
	if !errors.As(err, &e) {
		e = &base.Error{Kind: base.Internal, Detail: err.Error()}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			e = &base.Error{Kind: base.Timeout, Detail: err.Error(), Unknown: true}
		}
	}
	detail := e.Detail
	if e.Err != nil {
		detail = fmt.Sprintf("%s: %v", detail, e.Err)
	}
	failure := &rpcpb.Failure{Kind: e.Kind.String(), Subject: e.Subject, Detail: detail, Reason: e.Reason,
		Unknown: e.Unknown, RetryAfterMs: e.RetryAfter.Milliseconds()}
	s, detailErr := status.New(codeOf(e.Kind), e.Error()).WithDetails(failure)
	if detailErr != nil { // only a message that cannot be encoded: ours can
		return status.Error(codeOf(e.Kind), e.Error())
	}
	return s.Err()
}

// fromStatus is the reverse of toStatus. What failed below the handler (a broken
// connection, a time-out) may or may not have reached it.
func fromStatus(method, target string, err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return &base.Error{Kind: base.Internal, Detail: method, Err: err}
	}
	for _, detail := range s.Details() {
		if f, ok := detail.(*rpcpb.Failure); ok {
			kind, _ := base.ParseKind(f.Kind) // a kind of a later release is Internal to us
			return &base.Error{Kind: kind, Subject: f.Subject, Detail: f.Detail, Reason: f.Reason, Unknown: f.Unknown,
				RetryAfter: time.Duration(f.RetryAfterMs) * time.Millisecond}
		}
	}
	where := fmt.Sprintf("%s at %s: %s", method, target, s.Message())
	switch s.Code() {
	case codes.DeadlineExceeded, codes.Canceled:
		return &base.Error{Kind: base.Timeout, Detail: where, Unknown: true}
	case codes.Unavailable:
		return &base.Error{Kind: base.Unavailable, Detail: where, Unknown: true}
	case codes.Unimplemented:
		return &base.Error{Kind: base.Internal, Detail: where + ": the other end is of another release"}
	default:
		return &base.Error{Kind: base.Internal, Detail: where, Unknown: true}
	}
}
