package media_test

import (
	"testing"

	"github.com/tenure-faas/tenure/examples/media"
	"github.com/tenure-faas/tenure/sdk/go"
	"github.com/tenure-faas/tenure/sdk/go/tenuretest"
)

// review runs the workflow; the parallel steps in one of their two orders.
func review(host *tenuretest.Host, input string, reviewFirst bool) (map[string]string, error) {
	steps := []tenuretest.Step{
		{Name: "login", Handler: media.Login}, {Name: "rate", Handler: media.Rate}, {Name: "review", Handler: media.Review},
	}
	if reviewFirst {
		steps[1], steps[2] = steps[2], steps[1]
	}
	return host.Workflow(steps, input)
}

func newHost(t *testing.T) *tenuretest.Host {
	t.Helper()
	host := tenuretest.New()
	if out, err := host.Invoke(media.Register, `{"user":"ann","password":"secret"}`); err != nil || out != `{"user":"ann"}` {
		t.Fatalf("register: %s, %v", out, err)
	}
	return host
}

func TestReview(t *testing.T) {
	for _, reviewFirst := range []bool{false, true} {
		host := newHost(t)
		for i, input := range []string{
			`{"user":"ann","password":"secret","movie":"alien","rating":5,"text":"\"Scary\""}`,
			`{"user":"ann","password":"secret","movie":"alien","rating":3,"text":"Again."}`,
		} {
			host.Invocation = "id" + string(rune('1'+i))
			outputs, err := review(host, input, reviewFirst)
			if err != nil || outputs["login"] != `{"user":"ann"}` || outputs["review"] != `{"id":"`+host.Invocation+`"}` {
				t.Errorf("got %v, %v", outputs, err)
			}
		}
		out, err := host.Invoke(media.Movie, `{"movie":"alien"}`)
		want := `{"sum":8,"count":2,"reviews":[{"id":"id1","user":"ann","rating":5,"text":"\"Scary\""},` +
			`{"id":"id2","user":"ann","rating":3,"text":"Again."}]}`
		if err != nil || out != want {
			t.Errorf("got  %s, %v\nwant %s", out, err, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for input, reason := range map[string]string{
		`{"user":"ann","password":"guess","movie":"alien","rating":5,"text":"x"}`:    "wrong password",
		`{"user":"ann","movie":"alien","rating":5,"text":"x"}`:                       "wrong password",
		`{"user":"bob","password":"secret","movie":"alien","rating":5,"text":"x"}`:   "wrong password",
		`{"password":"secret","movie":"alien","rating":5,"text":"x"}`:                "invalid user",
		`{"user":"ann","password":"secret","movie":"alien","rating":6,"text":"x"}`:   "invalid rating",
		`{"user":"ann","password":"secret","movie":"alien","rating":"5","text":"x"}`: "invalid rating",
		`{"user":"ann","password":"secret","rating":5,"text":"x"}`:                   "invalid movie",
		`{"user":"ann","password":"secret","movie":"alien","rating":5}`:              "invalid text",
	} {
		host := newHost(t)
		_, err := review(host, input, false)
		if err == nil || err.Error() != reason {
			t.Errorf("%s: %v, want %s", input, err, reason)
		}
		if out, _ := host.Invoke(media.Movie, `{"movie":"alien"}`); out != `{"sum":0,"count":0,"reviews":[]}` {
			t.Errorf("%s left %s", input, out)
		}
	}
}

func TestRegisterTwice(t *testing.T) {
	host := newHost(t)
	if _, err := host.Invoke(media.Register, `{"user":"ann","password":"other"}`); err == nil || err.Error() != "user exists" {
		t.Errorf("error %v", err)
	}
	if stored, _ := host.Value("users", "ann"); stored == "" || stored == "secret" {
		t.Errorf("stored %q", stored)
	}
}

func TestTooManyReviews(t *testing.T) {
	host := newHost(t)
	host.Set("reviews", "alien", "["+string(make([]byte, 900<<10))+"]")
	_, err := review(host, `{"user":"ann","password":"secret","movie":"alien","rating":5,"text":"x"}`, false)
	if err == nil || err.Error() != "too many reviews" {
		t.Errorf("error %v", err)
	}
}

func TestHandlersAreRegistered(t *testing.T) {
	for name, handler := range media.Handlers() {
		host := tenuretest.New()
		host.Over = true
		input := `{"user":"ann","password":"secret","movie":"alien","rating":5,"text":"x"}`
		if _, err := host.Invoke(handler, input); err == nil || err.Error() != tenure.ErrOver.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
}
