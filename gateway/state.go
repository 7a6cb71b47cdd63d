package gateway

import (
	"net/http"

	"github.com/tidwall/gjson"

	"github.com/tenure-faas/tenure/base"
	"github.com/tenure-faas/tenure/worker"
)

// stateName is the name of single reads and writes in records and metrics.
const stateName = "state"

// key returns the key that the path names.
func (g *Gateway) key(c *call) (base.Key, error) {
	key := base.Key{Table: c.params[0], Key: c.params[1]}
	return key, g.checkKey(key)
}

// checkKey applies the key format and this gateway's limit.
func (g *Gateway) checkKey(key base.Key) error {
	if err := key.Validate(); err != nil {
		return err
	}
	if len(key.Key) > g.opt.MaxKeyBytes {
		return base.Errorf(base.TooLarge, "key in table %q has %d bytes, the limit is %d", key.Table, len(key.Key), g.opt.MaxKeyBytes)
	}
	return nil
}

// getState is GET /v1/state/{table}/{key}. It runs as an invocation, which is
// what makes it strictly serializable; it takes no Idempotency-Key, because a
// repeated read should see the present.
func (g *Gateway) getState(c *call) error {
	key, err := g.key(c)
	if err != nil {
		return err
	}
	c.r.Header.Del("Idempotency-Key")
	reply, err := g.execute(c, &worker.Request{
		ID: c.id, Name: stateName, Ephemeral: true,
		Ops: []worker.Op{{Kind: worker.OpGet, Key: key}},
	}, 0, nil)
	if err != nil {
		return err
	}
	if len(reply.Results) != 1 {
		return base.Errorf(base.Internal, "a read of one key gave %d results", len(reply.Results))
	}
	result := &reply.Results[0]
	if !result.Found {
		return base.Errorf(base.NotFound, "there is no value at %s", key)
	}
	etag := base.FormatETag(result.Version)
	c.header("Etag", etag)
	if none, ok := single(c.r.Header, "If-None-Match"); ok && (none == "*" || none == etag) {
		c.writeEmpty(http.StatusNotModified)
		return nil
	}
	c.write(http.StatusOK, typeBytes, result.Value)
	return nil
}

// putState is PUT /v1/state/{table}/{key}.
func (g *Gateway) putState(c *call) error {
	key, err := g.key(c)
	if err != nil {
		return err
	}
	// The worker keeps the bytes as the value, so they are nobody's buffer.
	value, err := c.readBody(nil, g.opt.MaxValueBytes)
	if err != nil {
		return err
	}
	return g.writeState(c, worker.Op{Kind: worker.OpPut, Key: key, Value: value})
}

// deleteState is DELETE /v1/state/{table}/{key}. An absent key is no error.
func (g *Gateway) deleteState(c *call) error {
	key, err := g.key(c)
	if err != nil {
		return err
	}
	return g.writeState(c, worker.Op{Kind: worker.OpDelete, Key: key})
}

// writeState runs one write under the request's conditions.
func (g *Gateway) writeState(c *call, op worker.Op) error {
	if err := conditions(c.r.Header, &op); err != nil {
		return err
	}
	reply, err := g.execute(c, &worker.Request{ID: c.id, Name: stateName, Ops: []worker.Op{op}}, 0, op.Value)
	if err != nil {
		return err
	}
	var version base.Version
	if len(reply.Results) == 1 {
		version = reply.Results[0].Version
	} else {
		version = base.Version(gjson.GetBytes(reply.Output, "results.0.version").Uint())
	}
	if version != 0 {
		c.header("Etag", base.FormatETag(version))
	}
	c.writeEmpty(http.StatusNoContent)
	return nil
}
