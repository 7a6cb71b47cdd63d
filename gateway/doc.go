// Package gateway is the HTTP API of Tenure: it turns requests into
// invocations, hands them to an Executor and writes what came of them.
//
// The contract is API.md's table, written for users in docs/api.md; every row
// of it is one endpoint value in routes.go, from which both the router and
// /openapi.json are made, so that neither can have what the other lacks.
//
// Invariants:
//   - Every answer to an invocation names it (Tenure-Invocation), also when the
//     request was refused before anything ran.
//   - Every error is an RFC 9457 problem, made in one place (problem.go). None
//     shows a stack trace or the text of an internal fault.
//   - No path is answered with a redirect: a path is served as it was sent or
//     refused, because a client that follows a redirect repeats a write.
//   - An invocation ends at its deadline and not when its client disconnects.
//   - Bodies, headers, nesting, operations and concurrent invocations are bounded
//     before memory is spent on them.
//
// Why a router of its own and not http.ServeMux? ServeMux redirects paths that
// are not clean, decodes before it splits, and answers 404 and 405 in plain
// text. Why no huma.Register? It validates by reflection, which the hot calls
// cannot afford, and its errors have another form unless a package variable of
// huma is overwritten. Operations and schemas are huma's; the handlers are
// plain functions, for all endpoints alike.
//
// It does not decide outcomes, keep records or idempotency keys, know leases,
// or start goroutines: those are the worker's. Start reading at endpoint
// (routes.go), Gateway.ServeHTTP and Gateway.execute.
package gateway
