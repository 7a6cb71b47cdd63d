package gateway

import (
	"net/http"
	"reflect"
)

// endpoint is one row of the API: what the router serves and what
// /openapi.json says of it.
type endpoint struct {
	method string
	// path is the pattern; {name} is one segment, {name...} the rest.
	path string
	// id, summary and tag are the operation's in /openapi.json.
	id, summary, tag string
	// invocation: every answer has Tenure-Invocation, and the headers of an
	// invocation are understood.
	invocation bool
	// idempotent: Idempotency-Key is understood.
	idempotent bool
	// conditional: If-Match and If-None-Match are understood.
	conditional bool
	// open: no credentials are needed.
	open bool
	// body is what the request may carry; nil: nothing.
	body []media
	// query lists the query parameters.
	query []parameter
	// answers are the successes, problems the statuses of errors beyond those
	// that every endpoint has.
	answers  []answer
	problems []int
	handle   func(*call) error
}

// media is one form of a body: JSON of a Go type, anything (any), or bytes.
type media struct {
	mediaType string
	shape     reflect.Type // nil: any JSON, or bytes if mediaType is not JSON
}

// parameter is one parameter or header.
type parameter struct {
	name, about string
}

// answer is one success.
type answer struct {
	status  int
	about   string
	body    []media
	headers []parameter
}

var (
	etagHeader  = parameter{"ETag", "The value's version, in quotes"}
	queryIsol   = parameter{"isolate", "true: every invocation gets an instance with fresh memory"}
	queryFollow = parameter{"follow", "true: go on with the lines to come"}
	queryAfter  = parameter{"after", "Only lines with a greater seq"}
	queryFlow   = parameter{"workflow", "Only lines of this workflow"}
)

// of is JSON of the type T.
func of[T any]() []media { return []media{{typeJSON, reflect.TypeFor[T]()}} }

// endpoints returns every row of the API.
func (g *Gateway) endpoints() []endpoint {
	return append(append(g.catalogueEndpoints(), g.invocationEndpoints()...), g.operationEndpoints()...)
}

// catalogueEndpoints deploy and show functions and workflows.
func (g *Gateway) catalogueEndpoints() []endpoint {
	return []endpoint{
		{
			method: "PUT", path: "/v1/functions/{name}", id: "deploy-function", tag: "functions",
			summary: "Deploy a wasm module of handlers",
			body:    []media{{"application/wasm", nil}, {typeBytes, nil}}, query: []parameter{queryIsol},
			answers:  []answer{{status: 201, about: "Deployed", body: of[deployAnswer]()}, {status: 200, about: "Unchanged", body: of[deployAnswer]()}},
			problems: []int{413, 429, 503}, handle: g.putFunction,
		}, {
			method: "GET", path: "/v1/functions", id: "list-functions", tag: "functions", summary: "List the functions",
			answers: []answer{{status: 200, about: "The functions", body: of[functionList]()}}, handle: g.listFunctions,
		}, {
			method: "GET", path: "/v1/functions/{name}", id: "get-function", tag: "functions", summary: "Show a function with its versions",
			answers: []answer{{status: 200, about: "The function", body: of[FunctionInfo]()}}, problems: []int{404}, handle: g.getFunction,
		}, {
			method: "DELETE", path: "/v1/functions/{name}", id: "delete-function", tag: "functions",
			summary: "Remove a function that no workflow needs",
			answers: []answer{{status: 204, about: "Removed"}}, problems: []int{404, 409, 503}, handle: g.deleteFunction,
		}, {
			method: "PUT", path: "/v1/workflows/{name}", id: "put-workflow", tag: "workflows", summary: "Define a workflow, in JSON or YAML",
			body:     []media{{typeJSON, nil}, {"application/yaml", nil}},
			answers:  []answer{{status: 201, about: "Created", body: of[workflowAnswer]()}, {status: 200, about: "Changed or unchanged", body: of[workflowAnswer]()}},
			problems: []int{413, 503}, handle: g.putWorkflow,
		}, {
			method: "GET", path: "/v1/workflows", id: "list-workflows", tag: "workflows", summary: "List the workflows",
			answers: []answer{{status: 200, about: "The workflows", body: of[workflowList]()}}, handle: g.listWorkflows,
		}, {
			method: "GET", path: "/v1/workflows/{name}", id: "get-workflow", tag: "workflows", summary: "Show a workflow's definition",
			answers: []answer{{status: 200, about: "The workflow", body: of[WorkflowInfo]()}}, problems: []int{404}, handle: g.getWorkflow,
		}, {
			method: "DELETE", path: "/v1/workflows/{name}", id: "delete-workflow", tag: "workflows", summary: "Remove a workflow",
			answers: []answer{{status: 204, about: "Removed"}}, problems: []int{404, 503}, handle: g.deleteWorkflow,
		},
	}
}

// invocationEndpoints run something: the hot calls.
func (g *Gateway) invocationEndpoints() []endpoint {
	output := []answer{{status: 200, about: "Committed and durable; the body is the output", body: []media{{typeJSON, nil}, {typeBytes, nil}}}}
	written := []answer{{status: 204, about: "Written and durable", headers: []parameter{etagHeader}}}
	return []endpoint{
		{
			method: "POST", path: "/v1/workflows/{name}/invoke", id: "invoke-workflow", tag: "invocations",
			summary:    "Run a workflow as one transaction; an empty body is the input {}",
			invocation: true, idempotent: true, body: []media{{typeJSON, nil}}, answers: output,
			problems: []int{404, 409, 413, 422}, handle: g.invokeWorkflow,
		}, {
			method: "POST", path: "/v1/functions/{name}/{handler}/invoke", id: "invoke-handler", tag: "invocations",
			summary:    "Run one handler as a workflow of its own; an empty body is the input {}",
			invocation: true, idempotent: true, body: []media{{typeJSON, nil}}, answers: output,
			problems: []int{404, 409, 413, 422}, handle: g.invokeHandler,
		}, {
			method: "POST", path: "/v1/txn", id: "transaction", tag: "state", summary: "Run operations, in order, as one transaction",
			invocation: true, idempotent: true, body: of[txnBody](),
			answers:  []answer{{status: 200, about: "Committed and durable", body: of[txnAnswer]()}},
			problems: []int{409, 413, 422}, handle: g.txn,
		}, {
			method: "GET", path: "/v1/state/{table}/{key...}", id: "get-state", tag: "state",
			summary:    "Read one value, strictly serializable; If-None-Match with its ETag gives 304",
			invocation: true,
			answers: []answer{
				{status: 200, about: "The value's bytes", body: []media{{typeBytes, nil}}, headers: []parameter{etagHeader}},
				{status: 304, about: "The value has still the version of If-None-Match", headers: []parameter{etagHeader}},
			},
			problems: []int{404, 413}, handle: g.getState,
		}, {
			method: "PUT", path: "/v1/state/{table}/{key...}", id: "put-state", tag: "state", summary: "Write one value",
			invocation: true, idempotent: true, conditional: true, body: []media{{typeBytes, nil}},
			answers: written, problems: []int{412, 413, 422}, handle: g.putState,
		}, {
			method: "DELETE", path: "/v1/state/{table}/{key...}", id: "delete-state", tag: "state",
			summary:    "Remove one value; an absent one is no error",
			invocation: true, idempotent: true, conditional: true,
			answers: written, problems: []int{412, 413, 422}, handle: g.deleteState,
		}, {
			method: "POST", path: "/v1/state", id: "load-state", tag: "state",
			summary:  "Bulk load: one JSON object per line, written in transactions of bounded size",
			body:     []media{{typeNDJSON, reflect.TypeFor[loadLine]()}},
			answers:  []answer{{status: 200, about: "All lines are durable", body: of[loadAnswer]()}},
			problems: []int{413, 429, 503, 504}, handle: g.load,
		}, {
			method: "GET", path: "/v1/invocations/{id}", id: "get-invocation", tag: "invocations", summary: "Show what came of an invocation",
			answers: []answer{{status: 200, about: "The record", body: of[invocationInfo]()}}, problems: []int{404}, handle: g.getInvocation,
		},
	}
}

// operationEndpoints are for those who operate a cluster.
func (g *Gateway) operationEndpoints() []endpoint {
	return []endpoint{
		{
			method: "GET", path: "/v1/cluster", id: "get-cluster", tag: "cluster", summary: "Show the view and the workers",
			answers: []answer{{status: 200, about: "The cluster", body: of[clusterInfo]()}}, handle: g.getCluster,
		}, {
			method: "POST", path: "/v1/workers/{name}/drain", id: "drain-worker", tag: "cluster",
			summary: "Take a worker out of the cluster when its invocations have ended",
			answers: []answer{{status: 204, about: "It is out"}}, problems: []int{404, 409, 504}, handle: g.drainWorker,
		}, {
			method: "GET", path: "/v1/leases/{table}/{key...}", id: "get-lease", tag: "cluster", summary: "Show who may use a key",
			answers: []answer{{status: 200, about: "The lease", body: of[LeaseInfo]()}}, problems: []int{413}, handle: g.getLease,
		}, {
			method: "GET", path: "/v1/logs", id: "get-logs", tag: "cluster", summary: "Read what functions logged, as NDJSON",
			query:   []parameter{queryFollow, queryAfter, queryFlow},
			answers: []answer{{status: 200, about: "The lines", body: []media{{typeNDJSON, reflect.TypeFor[logLine]()}}}}, handle: g.getLogs,
		}, {
			method: "GET", path: "/healthz", id: "healthz", tag: "health", summary: "Liveness", open: true,
			answers: []answer{{status: 200, about: "The process answers", body: of[healthAnswer]()}}, handle: g.healthz,
		}, {
			method: "GET", path: "/readyz", id: "readyz", tag: "health", summary: "Readiness: invocations are accepted", open: true,
			answers:  []answer{{status: 200, about: "Ready", body: of[healthAnswer]()}},
			problems: []int{http.StatusServiceUnavailable}, handle: g.readyz,
		}, {
			method: "GET", path: "/metrics", id: "metrics", tag: "health", summary: "Metrics for Prometheus", open: true,
			answers: []answer{{status: 200, about: "The metrics", body: []media{{"text/plain", nil}}}}, handle: g.serveMetrics,
		}, {
			method: "GET", path: "/openapi.json", id: "openapi", tag: "health", summary: "This description", open: true,
			answers: []answer{{status: 200, about: "OpenAPI 3.1", body: []media{{typeJSON, nil}}}}, handle: g.serveOpenAPI,
		}, {
			method: "GET", path: "/ui/", id: "ui", tag: "health", summary: "The web page", open: true,
			answers: []answer{{status: 200, about: "The page", body: []media{{"text/html", nil}}}}, handle: g.serveUI,
		}, {
			method: "GET", path: "/ui", id: "ui-short", tag: "health", summary: "The web page, for those who forget the slash", open: true,
			answers: []answer{{status: 200, about: "The page", body: []media{{"text/html", nil}}}}, handle: g.serveUI,
		},
	}
}
