// Package p keeps its promises.
package p

// TODO(#12): this one can be looked up.
// FIXME(#7) and so can this one.

// TODO: one day // want promise without an issue
var a int

var b int // FIXME(somebody) want promise without an issue

// TODO(#1) and TODO want promise without an issue
var c int

/* XXX want promise without an issue */

// TODOs in general, and toDO, are words like others.
var s = "TODO"
