package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxProblemBytes bounds what is read of an answer that is an error.
const maxProblemBytes = 64 << 10

// Problem is an error that the server answered.
type Problem struct {
	// Type is a URI; its last word is the kind of problem. Empty for an answer
	// that is not in the form of RFC 9457, such as a proxy's.
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Reason     string `json:"reason"`
	Invocation string `json:"invocation"`
	// RetryAfter is what the header of this name says, in whole seconds;
	// negative: there is none.
	RetryAfter time.Duration `json:"-"`
}

// readProblem reads the error that a response is.
func readProblem(response *http.Response) *Problem {
	p := &Problem{RetryAfter: -1}
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxProblemBytes)) // what came of it says more than why it ended
	if json.Unmarshal(body, p) != nil || p.Type == "" {
		*p = Problem{RetryAfter: -1, Detail: fmt.Sprintf("the answer is not a Tenure server's: %.200s", body)}
	}
	p.Status = response.StatusCode
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	if seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31); err == nil {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// Word returns the last word of the type, which names the kind of problem, or
// http-<status> for an answer without one.
func (p *Problem) Word() string {
	if word := p.Type[strings.LastIndexByte(p.Type, '/')+1:]; word != "" {
		return word
	}
	return "http-" + strconv.Itoa(p.Status)
}

// Error returns one line: word, title, detail, reason and invocation.
func (p *Problem) Error() string {
	parts := []string{p.Word(), p.Title}
	switch {
	case p.Reason != "" && p.Word() == "aborted": // what the function said is what its caller wants to know
		parts = []string{p.Word(), p.Reason}
	case p.Detail != "" && p.Detail != p.Title:
		parts = append(parts, p.Detail)
		if p.Reason != "" {
			parts = append(parts, p.Reason)
		}
	}
	line := strings.Join(parts, ": ")
	if p.Invocation != "" {
		line += " (invocation " + p.Invocation + ")"
	}
	return Printable(line)
}

// ExitCode returns 1: the request was refused or aborted.
func (p *Problem) ExitCode() int { return 1 }

// UnreachableError means that there was no answer.
type UnreachableError struct {
	// Server is the base URL.
	Server string
	// Unknown says that the request may have been carried out.
	Unknown bool
	// Err is the cause.
	Err error
}

// Error returns one line that names the server, the cause and what is known of
// the outcome.
func (e *UnreachableError) Error() string {
	text := fmt.Sprintf("no answer from %s: %v", e.Server, e.Err)
	if e.Unknown {
		text += "; the outcome is unknown: ask again with the same idempotency key"
	}
	return Printable(text)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// ExitCode returns 3.
func (e *UnreachableError) ExitCode() int { return 3 }

// Printable replaces line ends and tabs by spaces and other control characters
// by U+FFFD: functions choose these texts, and terminals obey control
// characters.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
