package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

// maxIdempotencyKeyBytes bounds an Idempotency-Key.
const maxIdempotencyKeyBytes = 256

// single returns the only value of a header in canonical form; ok is false
// when it is there more than once.
func single(h http.Header, name string) (value string, ok bool) {
	switch values := h[name]; len(values) {
	case 0:
		return "", true
	case 1:
		return values[0], true
	}
	return "", false
}

// timeout returns what Tenure-Timeout asks for, or zero.
func (g *Gateway) timeout(h http.Header) (time.Duration, error) {
	value, ok := single(h, "Tenure-Timeout")
	if !ok {
		return 0, base.Invalidf("timeout", "Tenure-Timeout is given more than once")
	}
	if value == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return 0, base.Invalidf("timeout", "Tenure-Timeout %q is not a duration like 750ms or 5s", cut(value))
	case d <= 0 || d > g.opt.MaxTimeout:
		return 0, base.Invalidf("timeout", "Tenure-Timeout is %v, it must be more than 0 and at most %v", d, g.opt.MaxTimeout)
	}
	return d, nil
}

// idempotencyKey returns the Idempotency-Key, or "" when there is none.
func idempotencyKey(h http.Header) (string, error) {
	if len(h["Idempotency-Key"]) == 0 {
		return "", nil
	}
	key, ok := single(h, "Idempotency-Key")
	switch {
	case !ok:
		return "", base.Invalidf("idempotency-key", "Idempotency-Key is given more than once")
	case key == "" || len(key) > maxIdempotencyKeyBytes:
		return "", base.Invalidf("idempotency-key", "Idempotency-Key has %d bytes, it must have 1 to %d", len(key), maxIdempotencyKeyBytes)
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] > 0x7e {
			return "", base.Invalidf("idempotency-key", "Idempotency-Key has the byte %#x at %d; printable ASCII is allowed", key[i], i)
		}
	}
	return key, nil
}

// digest hashes what must be equal when an idempotency key is used again.
// The parts are preceded by their lengths, so that no two requests run
// together to the same bytes.
func digest(r *http.Request, body []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	var length [8]byte
	part := func(b []byte) {
		binary.LittleEndian.PutUint64(length[:], uint64(len(b)))
		h.Write(length[:])
		h.Write(b)
	}
	part([]byte(r.Method))
	part([]byte(r.URL.Path))
	part([]byte(r.Header.Get("If-Match")))
	part([]byte(r.Header.Get("If-None-Match")))
	part(body)
	h.Sum(sum[:0])
	return sum
}

// traceID returns the trace id of a W3C traceparent, or "" if the header is
// missing or malformed: the standard says to go on without it.
func traceID(h http.Header) string {
	value, ok := single(h, "Traceparent")
	if !ok || len(value) < 55 || value[2] != '-' || value[35] != '-' || value[52] != '-' {
		return ""
	}
	version, id, parent, flags := value[:2], value[3:35], value[36:52], value[53:55]
	if !lowerHex(version) || !lowerHex(id) || !lowerHex(parent) || !lowerHex(flags) || version == "ff" ||
		len(value) > 55 && (version == "00" || value[55] != '-') ||
		strings.Trim(id, "0") == "" || strings.Trim(parent, "0") == "" {
		return ""
	}
	return id
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// conditions sets the conditions of a write from If-Match and If-None-Match.
func conditions(h http.Header, op *worker.Op) error {
	const subject = "precondition"
	match, ok := single(h, "If-Match")
	noneMatch, okNone := single(h, "If-None-Match")
	switch {
	case !ok || !okNone:
		return base.Invalidf(subject, "If-Match or If-None-Match is given more than once")
	case len(h["If-Match"]) > 0 && len(h["If-None-Match"]) > 0:
		return base.Invalidf(subject, "If-Match and If-None-Match are both given: choose one")
	case len(h["If-None-Match"]) > 0 && noneMatch != "*":
		return base.Invalidf(subject, "If-None-Match is %q; a write allows only *", cut(noneMatch))
	case noneMatch == "*":
		op.IfAbsent = true
		return nil
	case match == "*":
		op.IfPresent = true
		return nil
	case len(h["If-Match"]) == 0:
		return nil
	}
	version, err := parseETag(match)
	if err != nil {
		return base.Invalidf(subject, "If-Match is %q; it must be * or one ETag as a GET returned it, with its quotes", cut(match))
	}
	op.IfMatch = &version
	return nil
}

// parseETag reads what base.FormatETag wrote, and nothing else: no weak tags,
// no lists, no leading zeros.
func parseETag(tag string) (base.Version, error) {
	inner, ok := strings.CutPrefix(tag, `"`)
	if ok {
		inner, ok = strings.CutSuffix(inner, `"`)
	}
	n, err := strconv.ParseUint(inner, 10, 64)
	if !ok || err != nil || base.FormatETag(base.Version(n)) != tag {
		return 0, base.Invalidf("precondition", "%q is not an ETag", cut(tag))
	}
	return base.Version(n), nil
}

// cut shortens what a client sent for an error message.
func cut(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
