package host

// Compile is compile, for programs of the tests.
var Compile = compile
