package gateway

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
	"github.com/tenure-faas/tenure/workflow"
)

// deployAnswer is the body of the answer to a deployment.
type deployAnswer struct {
	Name     string   `json:"name" doc:"The function's name"`
	Version  string   `json:"version" doc:"The hexadecimal SHA-256 of the module"`
	Handlers []string `json:"handlers" doc:"Names of the exported handlers, sorted"`
}

// functionList is the body of GET /v1/functions.
type functionList struct {
	Functions []FunctionInfo `json:"functions" doc:"All functions, sorted by name"`
}

// workflowList is the body of GET /v1/workflows.
type workflowList struct {
	Workflows []WorkflowInfo `json:"workflows" doc:"All workflows, sorted by name"`
}

// workflowAnswer is the body of the answer to a definition.
type workflowAnswer struct {
	Name     string `json:"name" doc:"The workflow's name"`
	Revision int    `json:"revision" doc:"Counts the changes of the definition, from 1"`
}

// putFunction is PUT /v1/functions/{name}.
func (g *Gateway) putFunction(c *call) error {
	name := c.params[0]
	if err := base.ValidateName("function", name); err != nil {
		return err
	}
	mediaType, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	// What curl sends unasked is let through: the module's own header decides.
	if mediaType == "application/json" || strings.HasPrefix(mediaType, "multipart/") || strings.HasPrefix(mediaType, "text/") {
		return base.Invalidf("module", "the Content-Type is %q; send the bytes of a wasm module as application/wasm", mediaType)
	}
	isolate := false
	switch value := c.r.URL.Query().Get("isolate"); value {
	case "", "false":
	case "true":
		isolate = true
	default:
		return base.Invalidf("query", "isolate is %q, it must be true or false", cut(value))
	}
	module, err := c.readBody(nil, g.opt.MaxModuleBytes)
	if err != nil {
		return err
	}
	info, created, err := g.catalogue.DeployFunction(c.r.Context(), name, module, isolate)
	if err != nil {
		return err
	}
	return c.writeJSON(created201(created), deployAnswer{Name: info.Name, Version: info.Version, Handlers: orEmpty(info.Handlers)})
}

// listFunctions is GET /v1/functions.
func (g *Gateway) listFunctions(c *call) error {
	list := orEmpty(g.catalogue.Functions())
	for i := range list {
		list[i] = whole(list[i])
	}
	return c.writeJSON(http.StatusOK, functionList{Functions: list})
}

// getFunction is GET /v1/functions/{name}.
func (g *Gateway) getFunction(c *call) error {
	if err := base.ValidateName("function", c.params[0]); err != nil {
		return err
	}
	info, err := g.catalogue.Function(c.params[0])
	if err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, whole(info))
}

// deleteFunction is DELETE /v1/functions/{name}.
func (g *Gateway) deleteFunction(c *call) error {
	if err := base.ValidateName("function", c.params[0]); err != nil {
		return err
	}
	if err := g.catalogue.RemoveFunction(c.r.Context(), c.params[0]); err != nil {
		return err
	}
	c.writeEmpty(http.StatusNoContent)
	return nil
}

// putWorkflow is PUT /v1/workflows/{name}.
func (g *Gateway) putWorkflow(c *call) error {
	name := c.params[0]
	if err := base.ValidateName("workflow", name); err != nil {
		return err
	}
	body, err := c.readBody(nil, g.opt.MaxBodyBytes)
	if err != nil {
		return err
	}
	info, created, err := g.catalogue.PutWorkflow(c.r.Context(), name, body, definitionFormat(c.r.Header, body))
	if err != nil {
		return err
	}
	return c.writeJSON(created201(created), workflowAnswer{Name: info.Name, Revision: info.Revision})
}

// listWorkflows is GET /v1/workflows.
func (g *Gateway) listWorkflows(c *call) error {
	return c.writeJSON(http.StatusOK, workflowList{Workflows: orEmpty(g.catalogue.Workflows())})
}

// getWorkflow is GET /v1/workflows/{name}.
func (g *Gateway) getWorkflow(c *call) error {
	if err := base.ValidateName("workflow", c.params[0]); err != nil {
		return err
	}
	info, err := g.catalogue.Workflow(c.params[0])
	if err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, info)
}

// deleteWorkflow is DELETE /v1/workflows/{name}.
func (g *Gateway) deleteWorkflow(c *call) error {
	if err := base.ValidateName("workflow", c.params[0]); err != nil {
		return err
	}
	if err := g.catalogue.RemoveWorkflow(c.r.Context(), c.params[0]); err != nil {
		return err
	}
	c.writeEmpty(http.StatusNoContent)
	return nil
}

// definitionFormat takes the format from the Content-Type or, when that names
// neither, from the first byte: a definition in JSON is an object.
func definitionFormat(h http.Header, body []byte) workflow.Format {
	mediaType, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case strings.HasSuffix(mediaType, "yaml"):
		return workflow.YAML
	case strings.HasSuffix(mediaType, "json"):
		return workflow.JSON
	case bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")):
		return workflow.JSON
	}
	return workflow.YAML
}

// invocationInfo is the body of GET /v1/invocations/{id}.
type invocationInfo struct {
	ID       string    `json:"id" doc:"The invocation's id"`
	Workflow string    `json:"workflow" doc:"The workflow, function/handler, txn or state"`
	State    string    `json:"state" enum:"completed,aborted,failed" doc:"How it ended"`
	Attempts int       `json:"attempts" doc:"How often the transaction was tried"`
	Worker   string    `json:"worker" doc:"The worker that ran it"`
	Started  time.Time `json:"started" doc:"When it was accepted"`
	Ended    time.Time `json:"ended" doc:"When its outcome was durable"`
	// Output is what the caller got, if it is JSON; other text is a string.
	Output json.RawMessage `json:"output,omitempty" doc:"What it returned; a string if that is not JSON"`
	// OutputBase64 stands instead of Output where that is no text.
	OutputBase64 []byte   `json:"output_base64,omitempty" doc:"What it returned, if that is not UTF-8"`
	Error        *Problem `json:"error,omitempty" doc:"The problem, if it did not complete"`
}

// getInvocation is GET /v1/invocations/{id}.
func (g *Gateway) getInvocation(c *call) error {
	id, err := base.ParseInvocationID(c.params[0])
	if err != nil {
		return err
	}
	record, err := g.executor.Record(id)
	if base.KindOf(err) == base.NotFound && err != nil {
		return base.Errorf(base.NotFound, "nothing is known of invocation %s; records are kept for %v", id, g.opt.Retention)
	}
	if err != nil {
		return err
	}
	info, err := describe(&record)
	if err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, info)
}

// describe turns a record into the answer's body.
func describe(record *worker.Record) (*invocationInfo, error) {
	info := &invocationInfo{
		ID: record.ID.String(), Workflow: record.Workflow, State: record.State, Attempts: record.Attempts,
		Worker: record.Worker, Started: record.Started, Ended: record.Ended,
	}
	switch {
	case record.Err != nil:
		problem := problemOf(record.Err, info.ID)
		info.Error = &problem
	case isJSON(record.Output):
		info.Output = record.Output
	case utf8.Valid(record.Output):
		text, err := json.Marshal(string(record.Output))
		if err != nil {
			return nil, err
		}
		info.Output = text
	default:
		info.OutputBase64 = record.Output
	}
	return info, nil
}

// clusterInfo is the body of GET /v1/cluster.
type clusterInfo struct {
	View    base.View    `json:"view" doc:"The number of the membership"`
	Workers []workerInfo `json:"workers" doc:"The members"`
	Homes   int          `json:"homes" doc:"How many slots have their home at one of them"`
	Leases  int          `json:"leases" doc:"How many leases they hold"`
}

// workerInfo is one member of the cluster.
type workerInfo struct {
	ID       string `json:"id" doc:"The worker's id"`
	Address  string `json:"address" doc:"Where other workers reach it"`
	Provider string `json:"provider" doc:"Its RDMA provider"`
	Load     int    `json:"load" doc:"Running and queued invocations"`
}

// getCluster is GET /v1/cluster.
func (g *Gateway) getCluster(c *call) error {
	info := clusterInfo{Workers: []workerInfo{}}
	for _, s := range g.executor.Workers() {
		info.View = max(info.View, s.View)
		info.Homes += s.Homes
		info.Leases += s.Leases
		info.Workers = append(info.Workers, workerInfo{ID: s.Name, Address: s.Address, Provider: s.Provider, Load: s.Running + s.Queued})
	}
	return c.writeJSON(http.StatusOK, info)
}

// drainWorker is POST /v1/workers/{name}/drain.
func (g *Gateway) drainWorker(c *call) error {
	name := c.params[0]
	if err := base.ValidateName("worker", name); err != nil {
		return err
	}
	if err := g.executor.DrainWorker(c.r.Context(), name); err != nil {
		return err
	}
	c.writeEmpty(http.StatusNoContent)
	return nil
}

// getLease is GET /v1/leases/{table}/{key}.
func (g *Gateway) getLease(c *call) error {
	key, err := g.key(c)
	if err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, g.executor.Lease(key))
}

// whole makes the lists of a function empty instead of null.
func whole(f FunctionInfo) FunctionInfo {
	f.Handlers, f.Versions = orEmpty(f.Handlers), orEmpty(f.Versions)
	return f
}

// orEmpty returns list, or an empty list for nil: JSON clients iterate over it.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// created201 is the status for something that was put.
func created201(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}
