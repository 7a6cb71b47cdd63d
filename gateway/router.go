package gateway

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/tenure-faas/tenure/base"
)

// maxParams is the largest number of parameters in a path.
const maxParams = 2

// router finds the endpoint of a path. It is a tree of path segments, built
// once and then only read. Segments are compared after decoding, so that
// "%761" is "v1", but a path is split before decoding, so that "%2F" is part
// of a name (and, in a name, refused) or of a key (and there a slash).
type router struct {
	root node
}

// node is one place in the tree: what may follow, and what is served here.
type node struct {
	literals map[string]*node
	// param matches any segment that no literal matches.
	param *node
	// tail matches all that is left: a key, which may have slashes.
	tail *node
	// endpoints are by method; nil: nothing is served here.
	endpoints map[string]*endpoint
}

// add enters an endpoint under its path. {name} matches one segment and
// {name...}, at the end only, the rest.
func (t *router) add(e *endpoint) {
	n := &t.root
	for segment := range strings.SplitSeq(e.path[1:], "/") {
		var next **node
		switch {
		case strings.HasSuffix(segment, "...}"):
			next = &n.tail
		case strings.HasPrefix(segment, "{"):
			next = &n.param
		default:
			if n.literals == nil {
				n.literals = map[string]*node{}
			}
			if n.literals[segment] == nil {
				n.literals[segment] = &node{}
			}
			n = n.literals[segment]
			continue
		}
		if *next == nil {
			*next = &node{}
		}
		n = *next
	}
	if n.endpoints == nil {
		n.endpoints = map[string]*endpoint{}
	}
	n.endpoints[e.method] = e
}

// find returns the node of an escaped path and fills in params, decoded, in
// the order of the path. The error is NotFound, or Invalid for a path that
// anything between client and server might rewrite: one with empty or dot
// segments.
func (t *router) find(path string, params *[maxParams]string) (*node, error) {
	n, used := &t.root, 0
	if !strings.HasPrefix(path, "/") {
		return nil, base.Errorf(base.NotFound, "there is nothing at %q; paths begin with a slash", path)
	}
	for rest, more := path[1:], true; more; {
		if n.tail != nil {
			key, err := decodeKey(rest)
			params[used] = key
			return n.tail, err
		}
		var raw string
		raw, rest, more = strings.Cut(rest, "/")
		if bad := badSegment(raw); bad != "" && (raw != "" || more || n.literals[""] == nil) {
			if !more && n == &t.root {
				break // The path is "/".
			}
			return nil, base.Invalidf("name", "the path has %s where a name should be; nothing was done and nothing is redirected", bad)
		}
		segment, err := decode(raw)
		if err != nil {
			return nil, base.Invalidf("name", "the path segment %q: %v", raw, err)
		}
		switch next := n.literals[segment]; {
		case next != nil:
			n = next
		case n.param != nil:
			n = n.param
			params[used] = segment
			used++
		default:
			return nil, nothingAt(path, rest, more)
		}
	}
	if n.endpoints == nil {
		return nil, nothingAt(path, "", false)
	}
	return n, nil
}

// nothingAt returns the error for an unknown path, of which rest was not
// looked at yet.
func nothingAt(path, rest string, more bool) error {
	for more {
		var raw string
		raw, rest, more = strings.Cut(rest, "/")
		if bad := badSegment(raw); bad != "" {
			return base.Invalidf("name", "the path has %s where a name should be; nothing was done and nothing is redirected", bad)
		}
	}
	const most = 200
	if len(path) > most {
		path = path[:most] + "..."
	}
	return base.Errorf(base.NotFound, "there is nothing at %q; /openapi.json lists the paths", path)
}

// decodeKey returns the key that the rest of an escaped path stands for.
func decodeKey(rest string) (string, error) {
	if rest == "" {
		return "", base.Invalidf("key", "the key is missing: the path must be table/key")
	}
	for segment := range strings.SplitSeq(rest, "/") {
		if bad := badSegment(segment); bad != "" {
			return "", base.Invalidf("key", "the key in the path has %s, which clients and proxies rewrite; write the slashes of such a key as %%2F, or use POST /v1/txn", bad)
		}
	}
	key, err := decode(rest)
	if err != nil {
		return "", base.Invalidf("key", "the key in the path: %v", err)
	}
	return key, nil
}

// decode undoes the percent encoding, once.
func decode(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	return url.PathUnescape(s)
}

// badSegment says what is wrong with an escaped segment that may not stand in
// any path, or returns "". Encoded dots count as dots (RFC 3986 section
// 6.2.2.2): whoever normalises the path removes them.
func badSegment(s string) string {
	switch len(s) {
	case 0:
		return "an empty segment"
	case 1, 2, 3, 4, 6:
		if s[0] != '.' && s[0] != '%' {
			return ""
		}
		switch strings.ReplaceAll(strings.ToLower(s), "%2e", ".") {
		case ".", "..":
			return "a dot segment"
		}
	}
	return ""
}

// allow lists the methods of a node for the Allow header.
func (n *node) allow() string {
	methods := slices.Collect(maps.Keys(n.endpoints))
	if n.endpoints["GET"] != nil {
		methods = append(methods, "HEAD")
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}
