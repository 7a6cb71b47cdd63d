package dev

import (
	"fmt"

	"github.com/tenure-faas/tenure/cmd/tenure/internal/project"
	"github.com/tenure-faas/tenure/examples/bank"
	"github.com/tenure-faas/tenure/examples/media"
	"github.com/tenure-faas/tenure/examples/travel"
	"github.com/tenure-faas/tenure/runtime"
	"github.com/tenure-faas/tenure/runtime/native"
	"github.com/tenure-faas/tenure/sdk/go"
)

// example is what the program knows of an example beyond its directory.
type example struct {
	// handlers are the handlers of each of its functions.
	handlers map[string]map[string]tenure.Handler
	// try are the arguments of three commands, each after the program's name.
	try [3][]string
}

// examples returns the examples by name.
func examples() map[string]example {
	return map[string]example{
		"bank": {
			handlers: map[string]map[string]tenure.Handler{"bank": bank.Handlers()},
			try: [3][]string{
				{"put", "accounts/alice", "100", "accounts/bob", "0"},
				{"invoke", "transfer", `{"from":"alice","to":"bob","amount":30}`},
				{"get", "accounts/bob"},
			},
		},
		"media": {
			handlers: map[string]map[string]tenure.Handler{"media": media.Handlers()},
			try: [3][]string{
				{"invoke", "register", `{"user":"ann","password":"secret"}`},
				{"invoke", "review", `{"user":"ann","password":"secret","movie":"alien","rating":5,"text":"Scary."}`},
				{"invoke", "movie", `{"movie":"alien"}`},
			},
		},
		"travel": {
			handlers: map[string]map[string]tenure.Handler{"travel": travel.Handlers()},
			try: [3][]string{
				{"put", "hotels/ritz", "2", "flights/lh1", "1"},
				{"invoke", "reserve", `{"hotel":"ritz","flight":"lh1","user":"ann"}`},
				{"get", "hotels/ritz"},
			},
		},
	}
}

// native returns the bundles of the example's functions, compiled in. The error
// says that the project names a function that is not.
func (e example) native(p *project.Project) (map[string]runtime.Bundle, error) {
	bundles := map[string]runtime.Bundle{}
	for _, f := range p.Functions {
		if e.handlers[f.Name] == nil {
			return nil, fmt.Errorf("function %s of the project is not compiled into this program; use --runtime wasm", f.Name)
		}
		bundle, err := native.New(e.handlers[f.Name])
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", f.Name, err)
		}
		bundles[f.Name] = bundle
	}
	return bundles, nil
}
