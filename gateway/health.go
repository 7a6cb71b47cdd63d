package gateway

import (
	"net/http"
)

// healthAnswer is the body of /healthz and /readyz.
type healthAnswer struct {
	Status string `json:"status" doc:"ok"`
}

// healthz is GET /healthz: the process answers.
func (g *Gateway) healthz(c *call) error {
	return c.writeJSON(http.StatusOK, healthAnswer{Status: "ok"})
}

// readyz is GET /readyz: invocations are accepted.
func (g *Gateway) readyz(c *call) error {
	if err := g.refusal(); err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, healthAnswer{Status: "ok"})
}

// serveOpenAPI is GET /openapi.json.
func (g *Gateway) serveOpenAPI(c *call) error {
	text, err := g.openAPI()
	if err != nil {
		return err
	}
	c.write(http.StatusOK, typeJSON, text)
	return nil
}
