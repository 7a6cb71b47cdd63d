// Package bank is the example of a bank: accounts, and transfers between them
// that can neither lose nor create money.
//
// An account is a key of the table accounts, its balance a decimal integer; an
// account that was never opened has the balance 0. Requests name an account by
// a string or a number. The workflow transfer, in
// tenure.yaml, runs Withdraw and then Deposit in one transaction. The handlers
// run compiled in or, from the program in function/, as a WebAssembly module.
//
// Start reading at Handlers and tenure.yaml.
package bank

import (
	"errors"
	"math"

	"github.com/tenure-faas/tenure/sdk/go"
)

// accounts is the table of balances.
const accounts = "accounts"

// Reasons for which the handlers abort.
var (
	errAmount    = errors.New("invalid amount")
	errAccount   = errors.New("invalid account")
	errFunds     = errors.New("insufficient funds")
	errTooLarge  = errors.New("balance too large")
	errWithdrawn = errors.New("deposit needs an earlier step withdraw")
)

// Handlers returns the handlers by name, for compiling them into a server.
func Handlers() map[string]tenure.Handler {
	return map[string]tenure.Handler{
		"withdraw": Withdraw,
		"deposit":  Deposit,
		"open":     Open,
	}
}

// Withdraw takes amount from the account {from} and answers its new balance. It
// aborts with "insufficient funds" rather than overdraw.
func Withdraw(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	from, err := account(in, "from")
	if err != nil {
		return nil, err
	}
	amount, err := positive(in)
	if err != nil {
		return nil, err
	}
	balance, err := ctx.GetInt(accounts, from)
	if err != nil {
		return nil, err
	}
	if balance < amount {
		return nil, errFunds
	}
	balance -= amount
	if err := ctx.PutInt(accounts, from, balance); err != nil {
		return nil, err
	}
	return tenure.NewObject().Int("from_balance", balance).Bytes(), nil
}

// Deposit adds amount to the account {to} and answers the balances of both
// accounts. It runs after Withdraw and takes the first balance from that step's
// output, so that no account is read twice.
func Deposit(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	from, err := account(in, "from")
	if err != nil {
		return nil, err
	}
	to, err := account(in, "to")
	if err != nil {
		return nil, err
	}
	amount, err := positive(in)
	if err != nil {
		return nil, err
	}
	withdrawn, ok := ctx.Result("withdraw")
	if !ok {
		return nil, errWithdrawn
	}
	toBalance, err := raise(ctx, to, amount)
	if err != nil {
		return nil, err
	}
	fromBalance, _ := tenure.ParseJSON(withdrawn).Get("from_balance").Int()
	if from == to {
		fromBalance = toBalance // what was taken came back to the same account
	}
	return tenure.NewObject().Int("from_balance", fromBalance).Int("to_balance", toBalance).Bytes(), nil
}

// Open adds amount to the account {account} and answers its new balance: how
// money enters the bank.
func Open(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	name, err := account(in, "account")
	if err != nil {
		return nil, err
	}
	amount, err := positive(in)
	if err != nil {
		return nil, err
	}
	balance, err := raise(ctx, name, amount)
	if err != nil {
		return nil, err
	}
	return tenure.NewObject().Int("balance", balance).Bytes(), nil
}

// raise adds amount to an account and returns its new balance. It is a read and
// a write, not Context.Add, because the answer has the balance in it.
func raise(ctx *tenure.Context, name string, amount int64) (int64, error) {
	balance, err := ctx.GetInt(accounts, name)
	if err != nil {
		return 0, err
	}
	if balance > math.MaxInt64-amount {
		return 0, errTooLarge
	}
	balance += amount
	return balance, ctx.PutInt(accounts, name, balance)
}

// account reads the name of an account: a string, or a number, which the
// workflow's key expressions take as it is written.
func account(in tenure.JSON, field string) (string, error) {
	value := in.Get(field)
	if value.IsString() || value.IsNumber() {
		if name := value.String(); name != "" {
			return name, nil
		}
	}
	return "", errAccount
}

func positive(in tenure.JSON) (int64, error) {
	amount, ok := in.Get("amount").Int()
	if !ok || amount <= 0 {
		return 0, errAmount
	}
	return amount, nil
}
