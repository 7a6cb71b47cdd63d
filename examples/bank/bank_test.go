package bank_test

import (
	"errors"
	"strconv"
	"testing"

	"github.com/tenure-faas/tenure/examples/bank"
	"github.com/tenure-faas/tenure/sdk/go"
	"github.com/tenure-faas/tenure/sdk/go/tenuretest"
)

// transfer runs the workflow as tenure.yaml defines it.
func transfer(host *tenuretest.Host, input string) (string, error) {
	outputs, err := host.Workflow([]tenuretest.Step{
		{Name: "withdraw", Handler: bank.Withdraw}, {Name: "deposit", Handler: bank.Deposit},
	}, input)
	return outputs["deposit"], err
}

func TestTransfer(t *testing.T) {
	for _, tt := range []struct {
		name, input, output, reason, ann, bob string
	}{
		{name: "moves money", input: `{"from":"ann","to":"bob","amount":30}`, output: `{"from_balance":70,"to_balance":35}`, ann: "70", bob: "35"},
		{name: "all of it", input: `{"from":"ann","to":"bob","amount":100}`, output: `{"from_balance":0,"to_balance":105}`, ann: "0", bob: "105"},
		{name: "to a new account", input: `{"from":"ann","to":"eve","amount":1}`, output: `{"from_balance":99,"to_balance":1}`, ann: "99", bob: "5"},
		{name: "to itself", input: `{"from":"ann","to":"ann","amount":30}`, output: `{"from_balance":100,"to_balance":100}`, ann: "100", bob: "5"},
		{name: "unknown fields", input: `{"x":{"from":"bob"},"from":"ann","to":"bob","amount":1,"note":null}`, output: `{"from_balance":99,"to_balance":6}`, ann: "99", bob: "6"},
		{name: "numbers as names", input: `{"from":7,"to":8.50,"amount":2}`, output: `{"from_balance":1,"to_balance":6}`, ann: "100", bob: "5"},
		{name: "too much", input: `{"from":"ann","to":"bob","amount":101}`, reason: "insufficient funds"},
		{name: "to itself, too much", input: `{"from":"ann","to":"ann","amount":101}`, reason: "insufficient funds"},
		{name: "from nowhere", input: `{"from":"eve","to":"bob","amount":1}`, reason: "insufficient funds"},
		{name: "zero", input: `{"from":"ann","to":"bob","amount":0}`, reason: "invalid amount"},
		{name: "negative", input: `{"from":"ann","to":"bob","amount":-1}`, reason: "invalid amount"},
		{name: "fraction", input: `{"from":"ann","to":"bob","amount":1.5}`, reason: "invalid amount"},
		{name: "text", input: `{"from":"ann","to":"bob","amount":"1"}`, reason: "invalid amount"},
		{name: "no amount", input: `{"from":"ann","to":"bob"}`, reason: "invalid amount"},
		{name: "huge", input: `{"from":"ann","to":"bob","amount":9223372036854775808}`, reason: "invalid amount"},
		{name: "no sender", input: `{"to":"bob","amount":1}`, reason: "invalid account"},
		{name: "empty receiver", input: `{"from":"ann","to":"","amount":1}`, reason: "invalid account"},
		{name: "a truth value", input: `{"from":"ann","to":true,"amount":1}`, reason: "invalid account"},
		{name: "an object as receiver", input: `{"from":"ann","to":{"id":1},"amount":1}`, reason: "invalid account"},
		{name: "not an object", input: `[]`, reason: "invalid account"},
		{name: "overflow", input: `{"from":"ann","to":"rich","amount":1}`, reason: "balance too large"},
		{name: "not a number", input: `{"from":"ann","to":"odd","amount":1}`, reason: "accounts/odd is not a decimal 64-bit integer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := tenuretest.New()
			host.Set("accounts", "ann", "100")
			host.Set("accounts", "bob", "5")
			host.Set("accounts", "rich", "9223372036854775807")
			host.Set("accounts", "odd", "x")
			host.Set("accounts", "7", "3")
			host.Set("accounts", "8.50", "4")
			output, err := transfer(host, tt.input)
			if tt.reason != "" {
				var aborted *tenure.AbortError
				if !errors.As(err, &aborted) || aborted.Reason != tt.reason {
					t.Errorf("error %v, want %s", err, tt.reason)
				}
				tt.ann, tt.bob = "100", "5"
			} else if err != nil || output != tt.output {
				t.Errorf("got %s, %v, want %s", output, err, tt.output)
			}
			for name, want := range map[string]string{"ann": tt.ann, "bob": tt.bob} {
				if got, _ := host.Value("accounts", name); got != want {
					t.Errorf("%s has %s, want %s", name, got, want)
				}
			}
		})
	}
}

func TestDepositAloneIsRefused(t *testing.T) {
	if _, err := tenuretest.New().Invoke(bank.Deposit, `{"from":"a","to":"b","amount":1}`); err == nil {
		t.Error("money out of nothing")
	}
}

func TestOpen(t *testing.T) {
	host := tenuretest.New()
	for _, want := range []int{100, 200} {
		output, err := host.Invoke(bank.Open, `{"account":"ann","amount":100}`)
		if err != nil || output != `{"balance":`+strconv.Itoa(want)+`}` {
			t.Errorf("got %s, %v, want %d", output, err, want)
		}
	}
	if _, err := host.Invoke(bank.Open, `{"account":"ann"}`); err == nil {
		t.Error("opened without an amount")
	}
}

// TestAttemptOver expects the handlers to give up at once.
func TestAttemptOver(t *testing.T) {
	for name, handler := range bank.Handlers() {
		host := tenuretest.New()
		host.Over = true
		host.Results["withdraw"] = []byte(`{"from_balance":1}`)
		_, err := host.Invoke(handler, `{"from":"a","to":"b","account":"a","amount":1}`)
		if err == nil || err.Error() != tenure.ErrOver.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
}
