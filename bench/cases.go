package bench

import "github.com/tenure-faas/tenure/bench/load"

// Names of the servers that Main starts, and of the cases that it measures.
const (
	serverFloor  = "floor"
	serverNative = "native"
	serverWasm   = "wasm"
	serverMany   = "native with many accounts"

	caseFloor         = "floor"
	caseNativeUniform = "native uniform"
	caseNativeZipfian = "native zipfian"
	caseWasmUniform   = "wasm uniform"
	caseWasmZipfian   = "wasm zipfian"
	caseNativeMany    = "native uniform, many accounts"
	caseUncontended   = "native, 1 connection"
)

// What the project asks of itself on one machine.
const (
	askNative      = 0.5 // of the floor's throughput
	askWasm        = 0.4 // of the floor's throughput
	askSkew        = 0.8 // of the throughput under uniform load
	askMany        = 0.8 // of the throughput with few accounts
	askUncontended = 1.0 // milliseconds over one fdatasync, at the median
)

// scenario is one line of the measurement.
type scenario struct {
	name   string
	server string
	load   load.Options // without the server's URL
	// disk says that the disk is measured right before and after.
	disk bool
}

// cases returns what one round measures.
func cases(o *MainOptions) []scenario {
	uniform := load.Options{
		Workload: "bank", Accounts: o.Accounts, Connections: o.Connections,
		Duration: o.Duration, Warmup: o.Warmup, Timeout: requestTimeout,
	}
	zipfian, many, single := uniform, uniform, uniform
	zipfian.Theta = o.Theta
	many.Accounts = o.ManyAccounts
	single.Connections = 1
	return []scenario{
		{name: caseFloor, server: serverFloor, load: uniform},
		{name: caseNativeUniform, server: serverNative, load: uniform},
		{name: caseNativeZipfian, server: serverNative, load: zipfian},
		{name: caseWasmUniform, server: serverWasm, load: uniform},
		{name: caseWasmZipfian, server: serverWasm, load: zipfian},
		{name: caseNativeMany, server: serverMany, load: many},
		{name: caseUncontended, server: serverNative, load: single, disk: true},
	}
}

// ratioAsks are the asks of one case's throughput in terms of another's.
var ratioAsks = [...]struct {
	over, under string
	atLeast     float64
}{
	{caseNativeUniform, caseFloor, askNative},
	{caseWasmUniform, caseFloor, askWasm},
	{caseNativeZipfian, caseNativeUniform, askSkew},
	{caseWasmZipfian, caseWasmUniform, askSkew},
	{caseNativeMany, caseNativeUniform, askMany},
}
