// Package base is the vocabulary of Tenure: keys, values, versions, views,
// invocation ids, names, limits and error kinds.
//
// Every other package imports it and it imports only the standard library, so
// that a word means one thing in the whole project (DESIGN section 2; the
// glossary is in ARCHITECTURE.md). It holds no behaviour beyond validation,
// formatting and hashing of its own types.
//
// Start reading at Key and Error.
package base
