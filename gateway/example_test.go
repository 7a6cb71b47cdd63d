package gateway_test

import (
	"fmt"
	"net/http/httptest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenure-faas/tenure/gateway"
)

// A gateway answers from the beginning and accepts invocations after Serve.
// Executor and Catalogue are the worker's and the lease manager's.
func ExampleNew() {
	var executor gateway.Executor
	var catalogue gateway.Catalogue = struct{ gateway.Catalogue }{}
	g, err := gateway.New(gateway.Options{Token: "secret"}, executor, catalogue, prometheus.NewRegistry())
	if err != nil {
		fmt.Println(err)
		return
	}
	server := gateway.NewHTTPServer(gateway.Options{}, g.Handler())
	ready := func() int {
		w := httptest.NewRecorder()
		server.Handler.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Code
	}
	fmt.Println("starting:", ready())
	g.Serve()
	fmt.Println("serving:", ready())
	// Output:
	// starting: 503
	// serving: 200
}
