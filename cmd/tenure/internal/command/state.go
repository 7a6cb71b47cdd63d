package command

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tenure-faas/tenure/cmd/internal/cli"
	"github.com/tenure-faas/tenure/cmd/tenure/internal/client"
)

// Get is `tenure get`.
type Get struct {
	Key string `arg:"" name:"table/key" help:"The key."`
}

// value is what is printed of a key with --output json.
type value struct {
	Key string `json:"key"`
	// Text is the value, unless it is not UTF-8.
	Text    *string `json:"value,omitempty"`
	Base64  []byte  `json:"value_base64,omitempty"`
	Version uint64  `json:"version"`
}

// Run prints a value as it is.
func (c *Get) Run(ctx context.Context, env *Env) error {
	path, err := statePath(c.Key)
	if err != nil {
		return err
	}
	answer, err := env.Client.Do(ctx, client.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return err
	}
	if !env.json() {
		return env.raw(answer.Body)
	}
	v := value{Key: c.Key, Version: version(answer.Header)}
	if text := string(answer.Body); utf8.ValidString(text) {
		v.Text = &text
	} else {
		v.Base64 = answer.Body
	}
	return env.print(v)
}

// version reads the ETag of an answer; 0 if there is none.
func version(h http.Header) uint64 {
	n, err := strconv.ParseUint(strings.Trim(h.Get("ETag"), `"`), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Conditions are the conditions of a write.
type Conditions struct {
	IfMatch     string `placeholder:"VERSION" help:"Only if the value has this version; * for any value."`
	IfNoneMatch string `placeholder:"*" help:"Only if there is no value: give *."`
}

// header returns the conditions as the API has them. A bare number is a
// version. The error is of wrong usage.
func (c *Conditions) header() (http.Header, error) {
	h := http.Header{}
	switch {
	case c.IfMatch != "" && c.IfNoneMatch != "":
		return nil, cli.Usagef("--if-match and --if-none-match exclude each other")
	case c.IfNoneMatch != "" && c.IfNoneMatch != "*":
		return nil, cli.Usagef("--if-none-match is %q, it must be *", c.IfNoneMatch)
	}
	if c.IfMatch != "" {
		tag := c.IfMatch
		if _, err := strconv.ParseUint(tag, 10, 64); err == nil {
			tag = strconv.Quote(tag)
		}
		h.Set("If-Match", tag)
	}
	if c.IfNoneMatch != "" {
		h.Set("If-None-Match", c.IfNoneMatch)
	}
	return h, nil
}

// Put is `tenure put`.
type Put struct {
	Key   string   `arg:"" name:"table/key" help:"The key."`
	Value string   `arg:"" help:"Its value, - for standard input. One that begins with a hyphen goes after -- and all flags."`
	More  []string `arg:"" optional:"" help:"More keys and values; all are written in one transaction."`
	Conditions
}

// written is what is printed of a write with --output json.
type written struct {
	Key     string `json:"key"`
	Version uint64 `json:"version"`
}

// Run writes one value, or several in one transaction, and prints the versions.
func (c *Put) Run(ctx context.Context, env *Env) error {
	header, err := c.header()
	switch {
	case err != nil:
		return err
	case len(c.More)%2 != 0:
		return cli.Usagef("%q has no value; give TABLE/KEY VALUE", c.More[len(c.More)-1])
	case len(c.More) > 0 && len(header) > 0:
		return cli.Usagef("--if-match and --if-none-match are for one key")
	case len(c.More) > 0:
		return putSeveral(ctx, env, append([]string{c.Key, c.Value}, c.More...))
	}
	path, err := statePath(c.Key)
	if err != nil {
		return err
	}
	body, err := env.argument(c.Value, false)
	if err != nil {
		return err
	}
	answer, err := env.Client.Do(ctx, client.Request{Method: http.MethodPut, Path: path, Header: header, Body: body})
	if err != nil {
		return err
	}
	return env.written([]written{{c.Key, version(answer.Header)}})
}

// op is one operation of POST /v1/txn.
type op struct {
	Op    string `json:"op"`
	Table string `json:"table"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

// putSeveral writes pairs, keys and values in turn, in one transaction.
func putSeveral(ctx context.Context, env *Env, pairs []string) error {
	var ops []op
	for i := 0; i < len(pairs); i += 2 {
		tableName, keyName, err := key(pairs[i])
		if err != nil {
			return err
		}
		if pairs[i+1] == "-" {
			return cli.Usagef("standard input can be the value of one key only")
		}
		if !utf8.ValidString(pairs[i] + pairs[i+1]) {
			return cli.Usagef("the value of %q is not UTF-8; write it alone", pairs[i])
		}
		ops = append(ops, op{"put", tableName, keyName, pairs[i+1]})
	}
	body, err := json.Marshal(map[string]any{"ops": ops})
	if err != nil {
		return err
	}
	answer, err := env.Client.Do(ctx, client.Request{
		Method: http.MethodPost, Path: "/v1/txn", Header: http.Header{"Content-Type": {"application/json"}}, Body: body,
	})
	if err != nil {
		return err
	}
	var results struct{ Results []written }
	if err := decode(answer.Body, &results); err != nil {
		return err
	}
	if len(results.Results) != len(ops) {
		return errors.New("the server's answer is not readable: it has not one result for each value")
	}
	for i := range results.Results {
		results.Results[i].Key = pairs[2*i]
	}
	return env.written(results.Results)
}

// written prints what was written.
func (e *Env) written(all []written) error {
	if e.json() {
		if len(all) == 1 {
			return e.print(all[0])
		}
		return e.print(all)
	}
	var err error
	for _, w := range all {
		err = errors.Join(err, e.printf("%s: version %d\n", client.Printable(w.Key), w.Version))
	}
	return err
}

// Delete is `tenure delete`.
type Delete struct {
	Key string `arg:"" name:"table/key" help:"The key."`
	Conditions
}

// Run removes a value; an absent one is no error.
func (c *Delete) Run(ctx context.Context, env *Env) error {
	path, err := statePath(c.Key)
	if err != nil {
		return err
	}
	header, err := c.header()
	if err != nil {
		return err
	}
	answer, err := env.Client.Do(ctx, client.Request{Method: http.MethodDelete, Path: path, Header: header})
	if err != nil {
		return err
	}
	if env.json() {
		return env.print(written{c.Key, version(answer.Header)})
	}
	return nil
}
