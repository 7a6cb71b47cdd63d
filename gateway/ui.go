package gateway

import (
	"crypto/sha256"
	_ "embed" // for the page
	"encoding/base64"
	"net/http"
	"strings"
)

// The page is one file without a build step. It calls the API like any
// client, with the token that is typed into it.
//
//go:embed ui.html
var uiHTML string

// uiPage is the page and the policy that allows its own script and style, by
// their hashes, and nothing else: the page shows what functions logged.
type uiPage struct {
	html   []byte
	policy string
}

func newUIPage() uiPage {
	return uiPage{
		html: []byte(uiHTML),
		policy: "default-src 'none'; connect-src 'self'; script-src " + hashSource(uiHTML, "script") +
			"; style-src " + hashSource(uiHTML, "style") + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}
}

// hashSource returns the CSP source for the only element of a name.
func hashSource(html, element string) string {
	_, rest, _ := strings.Cut(html, "<"+element+">")
	content, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// serveUI is GET /ui/.
func (g *Gateway) serveUI(c *call) error {
	h := c.w.Header()
	h.Set("Content-Security-Policy", g.page.policy)
	h.Set("Cache-Control", "no-cache")
	h.Set("Referrer-Policy", "no-referrer")
	c.write(http.StatusOK, "text/html; charset=utf-8", g.page.html)
	return nil
}
