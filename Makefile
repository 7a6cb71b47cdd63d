# Everything here needs Go and make only; what needs more says so, and is left
# out where it is missing or has a target of its own. CONTRIBUTING.md says what to run when.

GO ?= go
# T is how long one fuzz target or one soak runs, N how often crash repeats.
T ?= 30s
N ?= 20
# These packages share memory between goroutines; the race detector costs the
# others time only.
RACE ?= ./bench/load/... ./bench/verbs ./gateway/... ./internal/node/... ./leasemgr/... ./rdma/... ./rpc/... ./runtime/... ./store/... ./txn/... ./worker/...

.DEFAULT_GOAL := build
.PHONY: build dev cluster test test-race test-rxe sim check fuzz bench-main bench-leases bench-guest soak crash clean toolchain

# go.mod's version, compared by its two numbers: Go before 1.21 cannot read it
# and says something that helps nobody.
toolchain:
	@command -v $(GO) >/dev/null || { echo "make: the command $(GO) is not in the PATH; install Go from https://go.dev/dl" >&2; exit 1; }
	@want=$$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' go.mod); have=$$($(GO) env GOVERSION | sed 's/^go//'); \
	echo "$$want $$have" | awk '{ split($$1, w, "."); split($$2, h, "."); exit !(h[1] > w[1] || h[1] == w[1] && h[2]+0 >= w[2]+0) }' \
	|| { echo "make: Go $$have is too old, go.mod asks for $$want or later: install it from https://go.dev/dl" >&2; exit 1; }

# With a C compiler and the headers of libibverbs (Debian: libibverbs-dev) the
# verbs provider is compiled in. The library is looked for when it is used.
build: toolchain
	@if echo '#include <infiniband/verbs.h>' | $${CC:-cc} -E - >/dev/null 2>&1; then \
		echo "CGO_ENABLED=1 $(GO) build -trimpath -tags rdma -o bin/ ./cmd/..."; CGO_ENABLED=1 $(GO) build -trimpath -tags rdma -o bin/ ./cmd/...; \
	else echo "CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/..."; CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...; fi

dev: toolchain
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/tenure
	bin/tenure dev --workers 4 --example bank

# A cluster of processes on this machine, until Ctrl-C.
cluster: build
	deploy/cluster.sh

# What continuous integration runs.
test: toolchain
	CGO_ENABLED=0 $(GO) test -shuffle=on ./...
	@if command -v $${CC:-cc} >/dev/null; then $(MAKE) --no-print-directory test-race; \
	else echo "make: no C compiler, so the race detector is left out (apt-get install gcc)"; fi

test-race: toolchain
	CGO_ENABLED=1 $(GO) test -race -shuffle=on $(RACE)

# A SoftRoCE device in virtual machines, on one node and on two. Needs a C
# compiler and Debian's packages, which it installs if it runs as root.
test-rxe: toolchain
	internal/rxevm/test-rxe.sh

# N simulated clusters with faults, from SEED on, and their histories. What a seed
# found again: go run ./internal/sim/simulate -seed 4711 -log
SEED ?= 0
sim: toolchain
	CGO_ENABLED=0 $(GO) run ./internal/sim/simulate -seed $(SEED) -n $(N)

# Before each commit. golangci-lint runs where it is installed, or where go.mod
# names it as a tool.
check: toolchain
	@unformatted=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); if [ -n "$$unformatted" ]; then echo "gofmt these:" >&2; echo "$$unformatted" >&2; exit 1; fi
	$(GO) vet ./...
	@if $(GO) tool -n golangci-lint >/dev/null 2>&1; then $(GO) tool golangci-lint run ./...; \
	elif command -v golangci-lint >/dev/null; then golangci-lint run ./...; \
	else echo "make: golangci-lint is not installed, so it is left out (https://golangci-lint.run)"; fi
	$(GO) mod tidy -diff

# Every fuzz target in turn, each for T. Left alone, go test may spend all of T on
# making one interesting input shorter, and says 0 execs/sec meanwhile.
fuzz: toolchain
	@grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "== $$target in $$(dirname "$$file")"; \
			CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(T) -fuzzminimizetime 1s "$$(dirname "$$file")" || exit 1; \
		done; \
	done

# The comparison of the README; takes minutes and wants the machine to itself.
bench-main: build
	bin/tenure bench main --report bench-report.md
	$(GO) test -run '^$$' -bench '^BenchmarkTransfer$$' -benchmem ./worker

# What leases cost between processes: their transfer, taking over the keys of a dead
# worker, growing and shrinking under load. Takes minutes and wants the machine to itself.
bench-leases: build
	bin/tenure bench leases

# What the sandbox costs: metered against unmetered guests, and a call with one
# Get against a native one.
bench-guest: toolchain
	$(GO) test -run '^$$' -bench '^BenchmarkMetered' ./runtime/wasm/meter
	$(GO) test -run '^$$' -bench '^BenchmarkCallGet' ./runtime/wasm
	$(GO) test -run '^$$' -bench '^BenchmarkHandlers' ./internal/node

# A million calls of wasm handlers with flat memory in guest and host, then a
# server of its own under transfers for T, with retries; its data goes with it.
soak: build
	$(GO) test ./runtime/wasm -run '^TestSoak$$' -v -timeout 60m -args -soak.calls=1000000
	@data=$$(mktemp -d) && trap 'kill $$server 2>/dev/null; wait $$server; rm -rf "$$data"' EXIT && trap 'exit 130' INT TERM && \
	{ bin/tenure dev --listen 127.0.0.1:0 --data "$$data/d" --example bank --runtime native >"$$data/out" & } && server=$$! && \
	until grep -q 'try:' "$$data/out"; do kill -0 $$server || exit 1; sleep 0.1; done && \
	bin/tenure bench load --server "$$(sed -n 's/^listening on //p' "$$data/out")" --preload --idempotency --duration $(T)

# Kill -9, crash images and failing disks, N times over, and N faults of each kind
# in clusters of processes: killed, stopped, their links cut. Some seven seconds a
# fault, of nine kinds; cutting links needs network namespaces (root, or user
# namespaces).
crash: toolchain
	TENURE_TEST_ROUNDS=$(N) CGO_ENABLED=0 $(GO) test -v -timeout 60m -run 'TestFaultsInCluster|TestCutLinks' ./internal/node
	CGO_ENABLED=0 $(GO) test -count=$(N) -run 'Crash|Kill|Fault|DevBank' -skip TestFaultsInCluster ./cmd/tenure ./internal/node/... ./store/... ./worker/...

clean:
	rm -rf bin
	$(GO) clean -testcache
