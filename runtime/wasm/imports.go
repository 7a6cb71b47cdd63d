package wasm

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/tenure-faas/tenure/runtime/wasm/meter"
)

// Limits of what a guest passes to the host in one call of a host function, in bytes.
const (
	maxBodyBytes   = 6 << 20 // inputs and outputs; values too, which the transaction limits further
	maxReasonBytes = 4 << 10
)

// importName is where a guest finds a function.
type importName struct{ module, name string }

// importedFunction is a function that guests may import.
type importedFunction struct {
	importName
	params, results []api.ValueType
	// run gets its arguments in stack and leaves its result in stack[0]. It runs on the goroutine of the call.
	run func(in *instance, memory api.Memory, stack []uint64)
}

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

// types reads the types of parameters or results: "ii" is two i32, "I" one i64.
func types(letters string) []api.ValueType {
	var types []api.ValueType
	for _, letter := range letters {
		if letter == 'I' {
			types = append(types, i64)
		} else {
			types = append(types, i32)
		}
	}
	return types
}

// provideImports makes everything that a guest may import, and nothing else, known to the engine.
func (r *Runtime) provideImports(ctx context.Context) error {
	r.imports = map[importName]importedFunction{}
	builders := map[string]wazero.HostModuleBuilder{}
	for _, f := range append(transactionImports(), wasiImports()...) {
		r.imports[f.importName] = f
		if builders[f.module] == nil {
			builders[f.module] = r.engine.NewHostModuleBuilder(f.module)
		}
		builders[f.module].NewFunctionBuilder().
			WithGoModuleFunction(checked(f.run), f.params, f.results).Export(f.name)
	}
	builders[meter.YieldModule] = r.engine.NewHostModuleBuilder(meter.YieldModule)
	builders[meter.YieldModule].NewFunctionBuilder().
		WithGoFunction(api.GoFunc(yield), nil, types("I")).Export(meter.YieldName)
	for name, builder := range builders {
		if _, err := builder.Instantiate(ctx); err != nil {
			return fmt.Errorf("module %q: %w", name, err)
		}
	}
	return nil
}

func yield(ctx context.Context, stack []uint64) {
	stack[0] = uint64(instanceOf(ctx).yield())
}

// checked makes a host function refuse to begin after the end of the call, so that a guest which does nothing but call
// host functions stops too.
func checked(run func(*instance, api.Memory, []uint64)) api.GoModuleFunc {
	return func(ctx context.Context, module api.Module, stack []uint64) {
		in := instanceOf(ctx)
		in.checkStop()
		run(in, module.Memory(), stack)
	}
}

// view returns size bytes of guest memory. They are valid until the guest runs again. An address outside the memory ends
// the call.
func view(memory api.Memory, address, size uint64, what string) []byte {
	b, ok := memory.Read(uint32(address), uint32(size))
	if !ok {
		panic(&ruleError{fmt.Sprintf("%s: %d bytes at %d are outside the memory", what, uint32(size), uint32(address))})
	}
	return b
}

// write copies data into guest memory. An address outside the memory ends the call.
func write(memory api.Memory, address uint64, data []byte, what string) {
	copy(view(memory, address, uint64(len(data)), what), data)
}
