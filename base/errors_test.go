package base

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

// TestKindWords holds the words to what clients branch on, and shows that none
// is missing or double.
func TestKindWords(t *testing.T) {
	words := []string{
		"internal", "invalid", "unauthorized", "forbidden", "not-found", "in-use", "aborted", "precondition",
		"too-large", "function-error", "idempotency-mismatch", "overloaded", "unavailable", "conflict", "timeout",
		"method-not-allowed",
	}
	if len(kindWords) != len(words) {
		t.Errorf("%d kinds, the test knows %d", len(kindWords), len(words))
	}
	for i, want := range words {
		if got := Kind(i).String(); got != want {
			t.Errorf("kind %d is %q on the wire, want %q", i, got, want)
		}
	}
	if got := Kind(200).String(); got != "kind-200" {
		t.Errorf("an unknown kind is %q", got)
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		err        error
		kind       Kind
		word, text string
	}{
		{Errorf(NotFound, "no function %q", "f"), NotFound, "not-found", `not-found: no function "f"`},
		{Invalidf("module", "no %s", "magic"), Invalid, "invalid-module", "invalid-module: no magic"},
		{&Error{Kind: Invalid}, Invalid, "invalid", "invalid"},
		{&Error{Kind: NotFound, Subject: "module"}, NotFound, "not-found", "not-found"},
		{&Error{Kind: Aborted, Reason: "no funds"}, Aborted, "aborted", "aborted: no funds"},
		{&Error{Kind: Unavailable, Detail: "read", Err: io.EOF}, Unavailable, "unavailable", "unavailable: read: EOF"},
	} {
		var e *Error
		if !errors.As(test.err, &e) || e.Word() != test.word || e.Error() != test.text {
			t.Errorf("%v: word %q, want %q, %q", test.err, e.Word(), test.word, test.text)
		}
		if wrapped := fmt.Errorf("deploy: %w", test.err); KindOf(wrapped) != test.kind {
			t.Errorf("%v has kind %v, want %v", wrapped, KindOf(wrapped), test.kind)
		}
	}
	if err := (&Error{Kind: Unavailable, Err: io.EOF}); !errors.Is(err, io.EOF) {
		t.Errorf("%v hides its cause", err)
	}
	if KindOf(io.EOF) != Internal || KindOf(nil) != Internal {
		t.Errorf("a foreign error has kind %v, none has %v", KindOf(io.EOF), KindOf(nil))
	}
}
