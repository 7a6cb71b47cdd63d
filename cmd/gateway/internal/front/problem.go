package front

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/gateway"
)

// refuse answers with a problem of one of the kinds that a door has.
func refuse(w http.ResponseWriter, e *base.Error) {
	status, title := http.StatusInternalServerError, "Internal fault"
	switch e.Kind {
	case base.Unauthorized:
		status, title = http.StatusUnauthorized, "No valid credentials"
		w.Header().Set("WWW-Authenticate", `Bearer realm="tenure"`)
	case base.Forbidden:
		status, title = http.StatusForbidden, "Not allowed"
	case base.TooLarge:
		status, title = http.StatusRequestEntityTooLarge, "Over a limit of size"
	case base.Overloaded:
		status, title = http.StatusTooManyRequests, "Overloaded"
		w.Header().Set("Retry-After", "1")
	case base.Unavailable:
		status, title = http.StatusServiceUnavailable, "Unavailable"
		w.Header().Set("Retry-After", "1")
	case base.Timeout:
		status, title = http.StatusGatewayTimeout, "Deadline passed"
	default:
	}
	body, err := json.Marshal(gateway.Problem{
		Type: "https://tenure.dev/problems/" + e.Word(), Title: title, Status: status, Detail: e.Detail,
	})
	if err != nil {
		panic(err) // strings and numbers only: there is nothing that Marshal refuses
	}
	answer(w, status, "application/problem+json", body)
}

// answer writes a whole answer. An error of the connection is nobody's concern.
func answer(w http.ResponseWriter, status int, mediaType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
