package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// The types below are never decoded into: txn and load read their bodies with
// gjson. They are what /openapi.json says of those bodies.

// txnBody is the body of POST /v1/txn.
type txnBody struct {
	Ops []txnOp `json:"ops" minItems:"1" doc:"The operations, run in order; gets see the writes before them"`
}

// txnOp is one operation.
type txnOp struct {
	Op          string          `json:"op" enum:"get,put,delete,add,append" doc:"What to do; add is int64 arithmetic on a decimal number, append adds one JSON element to a JSON array"`
	Table       string          `json:"table" doc:"The table"`
	Key         string          `json:"key" doc:"The key"`
	Value       json.RawMessage `json:"value,omitempty" doc:"put: a string is stored as its UTF-8 bytes, anything else as compact JSON; add: an integer, as number or string; append: any JSON"`
	ValueBase64 []byte          `json:"value_base64,omitempty" doc:"put: other bytes, instead of value"`
}

// txnAnswer is the answer of POST /v1/txn.
type txnAnswer struct {
	Results []txnResult `json:"results" doc:"One per operation: the state that it read or left behind"`
}

// txnResult is the result of one operation.
type txnResult struct {
	Value       string `json:"value,omitempty" doc:"The value as text"`
	ValueBase64 []byte `json:"value_base64,omitempty" doc:"The value, where it is not UTF-8"`
	Found       bool   `json:"found" doc:"Whether there is a value"`
	Version     uint64 `json:"version" doc:"How many times the key was written"`
}

// loadLine is one line of POST /v1/state.
type loadLine struct {
	Table       string          `json:"table" doc:"The table"`
	Key         string          `json:"key" doc:"The key"`
	Value       json.RawMessage `json:"value,omitempty" doc:"A string is stored as its UTF-8 bytes, anything else as compact JSON"`
	ValueBase64 []byte          `json:"value_base64,omitempty" doc:"Other bytes, instead of value"`
}

// everywhere are the problems that any endpoint with credentials may answer.
var everywhere = []int{400, 401, 403, 500}

// ofInvocations are the problems that any invocation may answer.
var ofInvocations = []int{429, 503, 504}

// pathParameter finds the parameters in a pattern.
var pathParameter = regexp.MustCompile(`\{([a-z]+)(\.\.\.)?\}`)

// openAPI describes endpoints as OpenAPI 3.1 in JSON.
func openAPI(version string, endpoints []endpoint) ([]byte, error) {
	spec := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Tenure", Version: version,
			Description: "Transactional stateful functions: a workflow of functions is one strictly serializable, durable, exactly-once transaction.",
		},
		Components: &huma.Components{
			Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}},
		},
		Paths: map[string]*huma.PathItem{},
	}
	for i := range endpoints {
		spec.AddOperation(operation(spec.Components.Schemas, &endpoints[i]))
	}
	for name, schema := range spec.Components.Schemas.Map() {
		loosen(name, schema)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("gateway: encode the OpenAPI description: %w", err)
	}
	return text, nil
}

// operation describes one endpoint.
func operation(schemas huma.Registry, e *endpoint) *huma.Operation {
	op := &huma.Operation{
		Method: e.method, Path: pathParameter.ReplaceAllString(e.path, "{$1}"),
		OperationID: e.id, Summary: e.summary, Tags: []string{e.tag},
		Responses: map[string]*huma.Response{},
	}
	text := &huma.Schema{Type: huma.TypeString}
	for _, match := range pathParameter.FindAllStringSubmatch(e.path, -1) {
		about := "The " + match[1]
		if match[2] != "" {
			about = "The key, percent-encoded; slashes may stand as they are"
		}
		op.Parameters = append(op.Parameters, &huma.Param{Name: match[1], In: "path", Required: true, Description: about, Schema: text})
	}
	for _, q := range e.query {
		op.Parameters = append(op.Parameters, &huma.Param{Name: q.name, In: "query", Description: q.about, Schema: text})
	}
	for _, h := range e.requestHeaders() {
		op.Parameters = append(op.Parameters, &huma.Param{Name: h.name, In: "header", Description: h.about, Schema: text})
	}
	if e.body != nil {
		op.RequestBody = &huma.RequestBody{Required: !e.invocation || e.path == "/v1/txn", Content: content(schemas, e.body)}
	}
	if !e.open {
		op.Security = []map[string][]string{{}, {"bearer": {}}}
	}
	for _, a := range e.answers {
		op.Responses[strconv.Itoa(a.status)] = &huma.Response{
			Description: a.about, Content: content(schemas, a.body), Headers: e.answerHeaders(a.headers...),
		}
	}
	problem := content(schemas, []media{{typeProblem, reflect.TypeFor[Problem]()}})
	for _, status := range e.allProblems() {
		var extra []parameter
		switch status {
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			extra = []parameter{{"Retry-After", "Seconds after which to try again"}}
		case http.StatusUnauthorized:
			extra = []parameter{{"WWW-Authenticate", "The scheme to use: Bearer"}}
		}
		op.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status), Content: problem, Headers: e.answerHeaders(extra...),
		}
	}
	return op
}

// loosen corrects what huma assumes of a Go struct: answers may get members in
// later versions, and lists are never null.
func loosen(name string, schema *huma.Schema) {
	if !slices.Contains([]string{"TxnBody", "TxnOp", "LoadLine"}, name) {
		schema.AdditionalProperties = nil
	}
	for _, property := range schema.Properties {
		if property.Type == huma.TypeArray {
			property.Nullable = false
		}
	}
}

// requestHeaders are the headers that an endpoint understands.
func (e *endpoint) requestHeaders() []parameter {
	var headers []parameter
	if e.invocation || e.id == "load-state" {
		headers = append(headers, parameter{"Tenure-Timeout", "Deadline of the whole invocation (of each transaction of a bulk load), like 750ms; at most 10m"})
	}
	if e.invocation {
		headers = append(headers, parameter{"traceparent", "W3C trace context; the trace id goes into the log"})
	}
	if e.idempotent {
		headers = append(headers, parameter{"Idempotency-Key", "1 to 256 printable characters: the same key with the same request returns the first outcome, for 24 h"})
	}
	switch {
	case e.conditional:
		headers = append(headers, parameter{"If-Match", "Write only if the value has this ETag; * for any"},
			parameter{"If-None-Match", "*: write only if there is no value"})
	case e.id == "get-state":
		headers = append(headers, parameter{"If-None-Match", "Answer 304 if the value has still this ETag"})
	}
	return headers
}

// answerHeaders are the headers of every answer of an endpoint, and extra.
func (e *endpoint) answerHeaders(extra ...parameter) map[string]*huma.Param {
	if e.invocation {
		extra = append(slices.Clone(extra), parameter{"Tenure-Invocation", "The invocation's id"})
	}
	if e.idempotent {
		extra = append(extra, parameter{"Tenure-Replayed", "true: this is the outcome of an earlier request with the same Idempotency-Key"})
	}
	headers := map[string]*huma.Param{}
	for _, p := range extra {
		headers[p.name] = &huma.Header{Description: p.about, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return headers
}

// allProblems lists the statuses of an endpoint's problems, sorted.
func (e *endpoint) allProblems() []int {
	all := slices.Clone(e.problems)
	if !e.open {
		all = append(all, everywhere...)
	}
	if e.invocation {
		all = append(all, ofInvocations...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// content describes the forms of a body.
func content(schemas huma.Registry, forms []media) map[string]*huma.MediaType {
	if forms == nil {
		return nil
	}
	types := map[string]*huma.MediaType{}
	for _, m := range forms {
		schema := &huma.Schema{}
		switch {
		case m.shape != nil:
			schema = schemas.Schema(m.shape, true, m.shape.Name())
		case strings.HasPrefix(m.mediaType, "text/"):
			schema.Type = huma.TypeString
		case m.mediaType != typeJSON && !strings.HasSuffix(m.mediaType, "yaml"):
			schema.Type, schema.Format = huma.TypeString, "binary"
		}
		types[m.mediaType] = &huma.MediaType{Schema: schema}
	}
	return types
}
