package workflow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// maxDepth bounds the nesting of a document. A definition needs four levels;
// the rest is room for a good message about a field that should not be there.
const maxDepth = 8

// node is a JSON or YAML value as far as definitions need it: what kind it is,
// and for mappings the fields in the order written. Both formats are read into
// it, so that one decoder gives both the same meaning and the same errors.
type node struct {
	kind   nodeKind
	text   string // of a string or a boolean
	items  []node
	fields []field
}

type field struct {
	name  string
	value node
}

type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	stringNode
	listNode
	mappingNode
)

var nodeKindWords = [...]string{
	nullNode: "nothing", boolNode: "a boolean", numberNode: "a number",
	stringNode: "a string", listNode: "a list", mappingNode: "a mapping",
}

func (k nodeKind) String() string { return nodeKindWords[k] }

// readJSON reads one JSON value and nothing after it. Duplicate fields are
// kept; decode refuses them.
func readJSON(data []byte) (node, error) {
	// Unmarshal alone checks the whole text: a token stream would accept
	// whatever follows the first value, and reports no position.
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return node{}, invalid(position(data, int(syntax.Offset)), "%v", err)
		}
		return node{}, invalid("definition", "%v", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return readJSONValue(dec, 1)
}

func readJSONValue(dec *json.Decoder, depth int) (node, error) {
	token, err := dec.Token()
	if err != nil {
		return node{}, invalid("definition", "%v", err)
	}
	switch v := token.(type) {
	case nil:
		return node{kind: nullNode}, nil
	case bool:
		return node{kind: boolNode, text: fmt.Sprint(v)}, nil
	case json.Number:
		return node{kind: numberNode, text: v.String()}, nil
	case string:
		return node{kind: stringNode, text: v}, nil
	}
	if depth > maxDepth {
		return node{}, tooDeep("definition")
	}
	n := node{kind: listNode}
	if token == json.Delim('{') {
		n.kind = mappingNode
	}
	for dec.More() {
		var name string
		if n.kind == mappingNode {
			token, err := dec.Token()
			if err != nil {
				return node{}, invalid("definition", "%v", err)
			}
			name, _ = token.(string) // a JSON field name is always a string
		}
		value, err := readJSONValue(dec, depth+1)
		if err != nil {
			return node{}, err
		}
		if n.kind == mappingNode {
			n.fields = append(n.fields, field{name, value})
		} else {
			n.items = append(n.items, value)
		}
	}
	if _, err := dec.Token(); err != nil {
		return node{}, invalid("definition", "%v", err)
	}
	return n, nil
}

// position names the place of a byte in a text; offset counts from 1, as
// json.SyntaxError does.
func position(data []byte, offset int) string {
	before := string(data[:min(max(offset-1, 0), len(data))])
	line := strings.Count(before, "\n")
	return fmt.Sprintf("line %d, column %d", line+1, len(before)-strings.LastIndexByte(before, '\n'))
}

func tooDeep(place string) error {
	return invalid(place, "nested deeper than %d levels; a definition needs four", maxDepth)
}
