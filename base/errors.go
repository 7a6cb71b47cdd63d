package base

import (
	"errors"
	"fmt"
	"time"
)

// Kind classifies an error by what a caller may do about it. Kinds are stable
// on the wire (the last word of a problem's type) and are only ever added.
type Kind uint8

// The kinds. Their words and HTTP statuses are in API.md.
const (
	// Internal is a fault of the platform itself; the log has the details.
	Internal Kind = iota
	// Invalid is a wrong request; Error.Subject says which part of it.
	Invalid
	// Unauthorized means that no valid credentials came with the request.
	Unauthorized
	// Forbidden means that the credentials do not allow the request.
	Forbidden
	// NotFound means that a function, workflow, invocation or value is absent.
	NotFound
	// InUse refuses the removal of a function that a workflow needs.
	InUse
	// Aborted means that the function itself gave up; Error.Reason is what it
	// said. Nothing was changed.
	Aborted
	// Precondition means that If-Match or If-None-Match did not hold.
	Precondition
	// TooLarge means over a limit of size.
	TooLarge
	// FunctionError means that the function crashed, ran out of memory or
	// broke a rule. Nothing was changed.
	FunctionError
	// IdempotencyMismatch means that the idempotency key was used before with
	// another request.
	IdempotencyMismatch
	// Overloaded means that a queue is full. Nothing was started; try later.
	Overloaded
	// Unavailable means that no worker can serve the request now. Nothing was
	// changed; try later.
	Unavailable
	// Conflict means that the attempts of a transaction are used up. Nothing
	// was changed; try later.
	Conflict
	// Timeout means that the deadline passed. Error.Unknown says whether the
	// outcome is unknown; otherwise nothing was changed.
	Timeout
	// MethodNotAllowed means that the path exists and the method does not.
	MethodNotAllowed
)

var kindWords = [...]string{
	Internal: "internal", Invalid: "invalid", Unauthorized: "unauthorized", Forbidden: "forbidden",
	NotFound: "not-found", InUse: "in-use", Aborted: "aborted", Precondition: "precondition",
	TooLarge: "too-large", FunctionError: "function-error", IdempotencyMismatch: "idempotency-mismatch",
	Overloaded: "overloaded", Unavailable: "unavailable", Conflict: "conflict", Timeout: "timeout",
	MethodNotAllowed: "method-not-allowed",
}

// String returns the kind's word on the wire.
func (k Kind) String() string {
	if int(k) < len(kindWords) {
		return kindWords[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// ParseKind returns the kind with this word; false, and Internal, if there is
// none.
func ParseKind(word string) (Kind, bool) {
	for k, w := range kindWords {
		if w == word {
			return Kind(k), true
		}
	}
	return Internal, false
}

// Error is an operating error with a kind that callers branch on.
type Error struct {
	// Kind says what the caller may do.
	Kind Kind
	// Subject refines Invalid: module, workflow, key, name, input, request...
	// It becomes the word invalid-<subject> on the wire.
	Subject string
	// Detail says what was wrong, where, and what to do.
	Detail string
	// Reason is what an aborting function said; empty for other kinds.
	Reason string
	// Unknown marks an outcome that may or may not have taken effect.
	Unknown bool
	// RetryAfter is a hint for Overloaded, Unavailable and Conflict; zero: none.
	RetryAfter time.Duration
	// Err is the cause, if any; errors.Is and errors.As see it.
	Err error
}

// Error returns kind, detail and cause in one line.
func (e *Error) Error() string {
	s := e.Word()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Word returns the last word of the problem type: the kind's word, or
// invalid-<subject>.
func (e *Error) Word() string {
	if e.Kind == Invalid && e.Subject != "" {
		return "invalid-" + e.Subject
	}
	return e.Kind.String()
}

// Errorf returns an *Error of the kind with a formatted detail.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Detail: fmt.Sprintf(format, args...)}
}

// Invalidf returns an *Error of kind Invalid with a subject and a detail.
func Invalidf(subject, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Subject: subject, Detail: fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of the first *Error in err's chain; Internal if
// there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
