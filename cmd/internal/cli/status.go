package cli

import (
	"errors"
	"fmt"
)

// The exit statuses besides 0.
const (
	// Failed means that the request was refused or aborted, or that the program
	// could not do its work.
	Failed = 1
	// Usage means that the arguments are wrong.
	Usage = 2
	// Unreachable means that the server gave no answer.
	Unreachable = 3
)

// statusError is an error that chooses its exit status.
type statusError struct {
	status int
	err    error
}

// Error returns the message of the cause.
func (e *statusError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *statusError) Unwrap() error { return e.err }

// ExitCode returns the exit status.
func (e *statusError) ExitCode() int { return e.status }

// Usagef returns an error about wrong arguments, whose exit status is Usage.
func Usagef(format string, args ...any) error {
	return &statusError{Usage, fmt.Errorf(format, args...)}
}

// Status returns the exit status of an error: what the first error in its chain
// with a method ExitCode says, otherwise Failed; 0 for nil.
func Status(err error) int {
	var coder interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coder):
		return coder.ExitCode()
	}
	return Failed
}
