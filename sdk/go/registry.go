package tenure

import (
	"cmp"
	"slices"
)

// registration is one handler under its name.
type registration struct {
	name    string
	handler Handler
}

// registry has what Handle was given, sorted by name. The order matters: the
// platform calls a handler by its index, and asks for the names only once while
// the module is instantiated many times, perhaps by an init that ranges over a
// map.
var registry []registration

// Handle registers a handler of this function under a name: ASCII letters,
// digits, '_', '-' and '.', beginning with a letter, a digit or '_'. It is called
// from an init function of the author's package, never later, and panics if the
// name is taken: the platform then refuses to deploy the module and shows the
// text.
func Handle(name string, h Handler) {
	if name == "" || h == nil {
		panic("tenure: Handle needs a name and a handler")
	}
	i, taken := slices.BinarySearchFunc(registry, name, func(r registration, name string) int {
		return cmp.Compare(r.name, name)
	})
	if taken {
		panic("tenure: handler \"" + name + "\" is registered twice")
	}
	registry = slices.Insert(registry, i, registration{name, h})
}

// Registered returns the handlers that were registered in this program, for
// servers that compile functions in.
func Registered() map[string]Handler {
	handlers := make(map[string]Handler, len(registry))
	for _, r := range registry {
		handlers[r.name] = r.handler
	}
	return handlers
}
