package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

// emptyInput is the input of an invocation without a body: an object, so that
// functions decode it like any other input.
var emptyInput = []byte("{}")

// invokeWorkflow is POST /v1/workflows/{name}/invoke.
func (g *Gateway) invokeWorkflow(c *call) error {
	name := c.params[0]
	if err := base.ValidateName("workflow", name); err != nil {
		return err
	}
	program, err := g.catalogue.Program(name)
	if err != nil {
		return err
	}
	return g.invoke(c, &worker.Request{Name: name, Workflow: name}, program)
}

// invokeHandler is POST /v1/functions/{name}/{handler}/invoke.
func (g *Gateway) invokeHandler(c *call) error {
	function, handler := c.params[0], c.params[1]
	if err := base.ValidateName("function", function); err != nil {
		return err
	}
	if err := base.ValidateName("handler", handler); err != nil {
		return err
	}
	program, err := g.catalogue.HandlerProgram(function, handler)
	if err != nil {
		return err
	}
	return g.invoke(c, &worker.Request{Name: function + "/" + handler, Function: function, Handler: handler}, program)
}

// invoke runs a program, which req names, with the body as its input and answers
// with its output.
func (g *Gateway) invoke(c *call, req *worker.Request, program *Program) error {
	buf := g.buffers.get()
	defer g.buffers.put(buf)
	input, err := c.readBody(*buf, g.opt.MaxBodyBytes)
	if err != nil {
		return err
	}
	*buf = input
	req.ID, req.Input = c.id, input
	req.Flow, req.Bundles, req.Lookup = program.Flow, program.Bundles, g.lookup
	req.Changed, req.Deployed = program.Changed, program.Deployed()
	if len(input) == 0 {
		req.Input = emptyInput
	} else if err := checkJSON("input", input); err != nil {
		return err
	}
	reply, err := g.execute(c, req, program.Flow.Timeout, input)
	if err != nil {
		return err
	}
	mediaType := typeJSON
	if !isJSON(reply.Output) {
		mediaType = typeBytes
	}
	c.write(http.StatusOK, mediaType, reply.Output)
	return nil
}

// execute runs req, whose deadline, idempotency key and trace it takes from
// the headers, and names the outcome's invocation in the answer. timeout is
// the program's own, zero if it has none; body is what the digest covers. The
// error is the invocation's.
//
// The invocation does not see the request's context: a client that hangs up
// does not undo what it asked for, and its retry with the same idempotency key
// finds the outcome.
func (g *Gateway) execute(c *call, req *worker.Request, timeout time.Duration, body []byte) (worker.Reply, error) {
	asked, err := g.timeout(c.r.Header)
	if err != nil {
		return worker.Reply{}, err
	}
	if req.IdempotencyKey, err = idempotencyKey(c.r.Header); err != nil {
		return worker.Reply{}, err
	}
	if req.IdempotencyKey != "" {
		req.Digest = digest(c.r, body)
	}
	req.Trace = traceID(c.r.Header)
	switch {
	case asked > 0:
		timeout = asked
	case timeout <= 0:
		timeout = g.opt.Timeout
	}

	series := g.metrics.series(req.Name)
	if err := g.enter(); err != nil {
		series.count(g.metrics, asError(err).Kind.String())
		return worker.Reply{}, err
	}
	defer g.leave()
	start := time.Now()
	req.Deadline = start.Add(timeout)
	ctx, cancel := context.WithDeadline(context.Background(), req.Deadline)
	defer cancel()
	reply := g.executor.Execute(ctx, req)
	g.metrics.seconds.Observe(time.Since(start).Seconds())
	series.count(g.metrics, outcome(&reply))

	if reply.ID != (base.InvocationID{}) && reply.ID != c.id {
		c.setInvocation(reply.ID)
	}
	if reply.Replayed {
		c.header("Tenure-Replayed", "true")
	}
	if reply.Err != nil {
		return reply, reply.Err
	}
	return reply, nil
}

// outcome is the value of the metric's label for a reply. A replay is an
// outcome of its own: what it repeats was counted when it happened.
func outcome(reply *worker.Reply) string {
	switch {
	case reply.Replayed:
		return "replayed"
	case reply.Err != nil:
		return reply.Err.Kind.String()
	}
	return outcomeCompleted
}
