package workflow

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxBlockColumn bounds where a list entry or a field of a block may stand.
// Every level of block nesting moves to the right, so this bounds the depth of
// a document before the parser, which recurses, has seen it.
const maxBlockColumn = 256

// Documents are refused by their numbers of fields and of list entries before
// they are parsed: the parser's time grows with the square of them. The largest
// definition has under 512 fields and 8192 entries.
const (
	maxYAMLFields  = 1024
	maxYAMLEntries = 8192 + 1024
)

// readYAML reads one YAML document. It walks the syntax tree instead of
// decoding into structs: the tree keeps the order of the steps and tells a
// string from a number, and the tokens show what to refuse before anything is
// expanded.
func readYAML(data []byte) (node, error) {
	tokens := lexer.Tokenize(string(data))
	if err := refuseTokens(tokens); err != nil {
		return node{}, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return node{}, yamlSyntaxError(err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return node{}, invalid("definition", "there must be exactly one YAML document")
	}
	return yamlValue(file.Docs[0].Body, 1)
}

// refuseTokens refuses what definitions have no use for and what would cost
// more than its length: aliases multiply, nesting recurses.
func refuseTokens(tokens token.Tokens) error {
	flow := 0 // how many [ and { are open
	fields, entries := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return invalid(yamlPlace(t), "anchors, aliases and merge keys are not supported; write the value out")
		case token.TagType, token.DirectiveType:
			return invalid(yamlPlace(t), "tags and directives are not supported; leave %q out", clip(t.Value))
		case token.SequenceStartType, token.MappingStartType:
			if flow++; flow > maxDepth {
				return tooDeep(yamlPlace(t))
			}
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.MappingKeyType:
			return invalid(yamlPlace(t), "'? ' keys are not supported; write name: value")
		case token.SequenceEntryType, token.MappingValueType, token.CollectEntryType:
			if t.Type == token.MappingValueType {
				fields++
			} else {
				entries++
			}
			if fields > maxYAMLFields || entries > maxYAMLEntries {
				return invalid(yamlPlace(t), "more fields or list entries than a definition can have")
			}
			if flow <= 0 && t.Position.Column > maxBlockColumn {
				return tooDeep(yamlPlace(t))
			}
		default:
		}
	}
	return nil
}

func yamlValue(n ast.Node, depth int) (node, error) {
	if depth > maxDepth {
		return node{}, tooDeep(yamlPlace(n.GetToken()))
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return node{kind: nullNode}, nil
	case *ast.BoolNode:
		return node{kind: boolNode, text: fmt.Sprint(n.Value)}, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return node{kind: numberNode, text: n.GetToken().Value}, nil
	case *ast.StringNode:
		return node{kind: stringNode, text: n.Value}, nil
	case *ast.LiteralNode:
		return node{kind: stringNode, text: n.Value.Value}, nil
	case *ast.SequenceNode:
		list := node{kind: listNode}
		for _, value := range n.Values {
			item, err := yamlValue(value, depth+1)
			if err != nil {
				return node{}, err
			}
			list.items = append(list.items, item)
		}
		return list, nil
	case *ast.MappingNode:
		return yamlMapping(n.Values, depth)
	case *ast.MappingValueNode:
		return yamlMapping([]*ast.MappingValueNode{n}, depth)
	default:
		return node{}, invalid(yamlPlace(n.GetToken()), "a YAML %s has no place in a definition", n.Type())
	}
}

func yamlMapping(pairs []*ast.MappingValueNode, depth int) (node, error) {
	mapping := node{kind: mappingNode}
	for _, pair := range pairs {
		key, ok := pair.Key.(*ast.StringNode)
		if !ok {
			place := yamlPlace(pair.Key.GetToken())
			return node{}, invalid(place, "the name %q is not a string; put it in quotes", clip(pair.Key.String()))
		}
		value, err := yamlValue(pair.Value, depth+1)
		if err != nil {
			return node{}, err
		}
		mapping.fields = append(mapping.fields, field{key.Value, value})
	}
	return mapping, nil
}

// yamlSyntaxError keeps the place and the first line of the parser's message;
// the rest of it is a drawing of the source for terminals.
func yamlSyntaxError(err error) error {
	var syntax yaml.Error
	if errors.As(err, &syntax) && syntax.GetToken() != nil {
		return invalid(yamlPlace(syntax.GetToken()), "%s", clip(syntax.GetMessage()))
	}
	return invalid("definition", "not valid YAML: %s", clip(err.Error()))
}

func yamlPlace(t *token.Token) string {
	if t == nil || t.Position == nil {
		return "definition"
	}
	return fmt.Sprintf("line %d, column %d", t.Position.Line, t.Position.Column)
}
