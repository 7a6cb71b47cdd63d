package acceptance

import (
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/tenure-faas/tenure/internal/node"
)

// program is the command line, built once.
var program = sync.OnceValues(func() (string, error) {
	if err := noteSources("../../cmd", "../../examples", "../../sdk/go"); err != nil {
		return "", err
	}
	return build("bin/tenure", []string{"CGO_ENABLED=0"}, "../../cmd/tenure")
})

// example starts a node and deploys a directory of examples to it with
// `tenure deploy`: functions from source, workflows from its tenure.yaml.
func example(t *testing.T, name string) *server {
	t.Helper()
	s := start(t, node.Options{})
	out, err := exec.CommandContext(t.Context(), must(t, program), "deploy", "../../examples/"+name, "--server", s.url).CombinedOutput()
	if err != nil {
		t.Fatalf("tenure deploy: %v\n%s", err, out)
	}
	return s
}

// invoke runs a workflow.
func (s *server) invoke(t *testing.T, workflow, input string) reply {
	t.Helper()
	return s.call(t, "POST", "/v1/workflows/"+workflow+"/invoke", input)
}

// aborts ends the test unless the answer is an abort with the reason.
func (r reply) aborts(t *testing.T, reason string) {
	t.Helper()
	if p := r.refused(t, 409, "aborted"); p.Reason != reason {
		t.Errorf("%s: the reason is %q, want %q", r.of, p.Reason, reason)
	}
}

func TestBank(t *testing.T) {
	t.Parallel()
	s := example(t, "bank")
	s.invoke(t, "open", `{"account":"ann","amount":100}`).gives(t, `{"balance":100}`)
	s.invoke(t, "transfer", `{"from":"ann","to":"bob","amount":30,"note":"rent","tags":[{"x":null}]}`).gives(t, `{"from_balance":70,"to_balance":30}`)
	s.invoke(t, "transfer", `{"from":"ann","to":"ann","amount":5}`).gives(t, `{"from_balance":70,"to_balance":70}`)
	s.invoke(t, "transfer", `{"from":"ann","to":"bob","amount":71}`).aborts(t, "insufficient funds")
	s.invoke(t, "transfer", `{"from":"ann","to":"bob","amount":-1}`).aborts(t, "invalid amount")
	s.invoke(t, "transfer", `{"from":"ann","to":"bob","amount":1.5}`).aborts(t, "invalid amount")
	s.invoke(t, "transfer", `{"from":"ann","to":"bob"}`).aborts(t, "invalid amount")
	s.invoke(t, "transfer", `{"from":"ann","amount":1}`).refused(t, 400, "invalid-input")
	s.invoke(t, "transfer", `{"from":"","to":"bob","amount":1}`).refused(t, 400, "invalid-input")
	s.call(t, "GET", "/v1/state/accounts/ann", "").gives(t, "70")
	s.call(t, "GET", "/v1/state/accounts/bob", "").gives(t, "30")
}

func TestTravel(t *testing.T) {
	t.Parallel()
	s := example(t, "travel")
	s.call(t, "PUT", "/v1/state/hotels/ritz", "3").want(t, 204)
	s.call(t, "PUT", "/v1/state/flights/lh1", "2").want(t, 204)
	s.invoke(t, "search", `{"hotel":"ritz","flight":"lh1"}`).gives(t, `{"rooms":3,"seats":2}`)

	r := s.invoke(t, "reserve", `{"hotel":"ritz","flight":"lh1","user":"ann","card":{"unknown":true}}`)
	id := r.header.Get("Tenure-Invocation")
	order := `{"order":"` + id + `","hotel":"ritz","flight":"lh1","user":"ann"`
	r.gives(t, order+`,"rooms_left":2,"seats_left":1}`)
	s.call(t, "GET", "/v1/state/orders/"+id, "").gives(t, order+"}")
	// The user is optional.
	r = s.invoke(t, "reserve", `{"hotel":"ritz","flight":"lh1"}`)
	r.gives(t, `{"order":"`+r.header.Get("Tenure-Invocation")+`","hotel":"ritz","flight":"lh1","rooms_left":1,"seats_left":0}`)
	// No seat, and so no room.
	r = s.invoke(t, "reserve", `{"hotel":"ritz","flight":"lh1","user":"bob"}`)
	r.aborts(t, "sold out")
	s.call(t, "GET", "/v1/state/orders/"+r.header.Get("Tenure-Invocation"), "").refused(t, 404, "not-found")
	s.invoke(t, "reserve", `{"hotel":"nowhere","flight":"lh1"}`).aborts(t, "sold out")
	s.invoke(t, "search", `{"hotel":"ritz","flight":"lh1"}`).gives(t, `{"rooms":1,"seats":0}`)
	s.invoke(t, "reserve", `{"hotel":"ritz"}`).refused(t, 400, "invalid-input")
}

func TestMedia(t *testing.T) {
	t.Parallel()
	s := example(t, "media")
	s.invoke(t, "register", `{"user":"ann","password":"secret"}`).gives(t, `{"user":"ann"}`)
	s.invoke(t, "register", `{"user":"ann","password":"other"}`).aborts(t, "user exists")
	s.invoke(t, "movie", `{"movie":"alien"}`).gives(t, `{"sum":0,"count":0,"reviews":[]}`)

	r := s.invoke(t, "review", `{"user":"ann","password":"secret","movie":"alien","rating":5,"text":"Scary \"!\".","spoilers":false}`)
	id := r.header.Get("Tenure-Invocation")
	r.gives(t, `{"login":{"user":"ann"},"rate":{"rating":5},"review":{"id":"`+id+`"}}`)
	reviewed := `{"sum":5,"count":1,"reviews":[{"id":"` + id + `","user":"ann","rating":5,"text":"Scary \"!\"."}]}`
	s.invoke(t, "movie", `{"movie":"alien"}`).gives(t, reviewed)

	const review = `{"user":"USER","password":"PASSWORD","movie":"alien","rating":RATING,"text":"TEXT"}`
	for _, test := range [][5]string{
		{"ann", "guess", "1", "Bad.", "wrong password"}, {"bob", "secret", "1", "Bad.", "wrong password"},
		{"ann", "secret", "6", "Bad.", "invalid rating"}, {"ann", "secret", "1", "", "invalid text"},
	} {
		input := strings.NewReplacer("USER", test[0], "PASSWORD", test[1], "RATING", test[2], "TEXT", test[3]).Replace(review)
		s.invoke(t, "review", input).aborts(t, test[4])
	}
	s.invoke(t, "movie", `{"movie":"alien"}`).gives(t, reviewed)
}
