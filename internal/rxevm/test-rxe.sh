#!/usr/bin/env bash
# Runs everything that needs a real RDMA device, on SoftRoCE in virtual machines:
# on one node, on two, then clusters of two and of three of which one dies. `make
# test-rxe` calls it. It takes a C compiler
# and Debian's packages, and installs what is missing if it runs as root.
#
# ONE_NODE_FLAGS, TWO_NODES_FLAGS and CLUSTER_FLAGS go to rxevm, for instance
# "--logs DIR".
#
# All of it may take TEST_RXE_SECONDS, 600 unless that is set: more is a failure,
# although every test passed. On two cores with nothing else to do it takes about
# half of that. Set it where the machine is slower or busy, or where the first
# run has to fetch packages over a slow network.
set -euo pipefail
limit=${TEST_RXE_SECONDS:-600}
case $limit in
*[!0-9]*)
  echo "test-rxe: TEST_RXE_SECONDS is \"$limit\": give a number of seconds" >&2
  exit 2
  ;;
esac
cd "$(dirname "$0")/../.."

# Packages whose tests run on one node, with the tag rdma.
one_node=(./cgo/ibverbs ./rdma/verbs ./rdma/machine ./worker)
# Of the workers' tests those in which leases move over the device.
worker_tests='-test.short -test.run=TestLeaseMovesBetweenWorkers|TestStrictSerializabilityOver'
# A package whose tests drive an agent on the other node, and one whose tests
# run on both nodes at the same time.
driven=./rdma/verbs driven_tests='-test.run=TestConformanceOnTwoMachines'
both=./rdma/wire both_tests='-test.run=Rxe'
# One whose tests are the nodes of a cluster.
cluster=./internal/node

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What compiles the binding of libibverbs. The harness knows what it needs itself.
missing=()
command -v "${CC:-gcc}" >/dev/null || missing+=(gcc libc6-dev)
[ -e /usr/include/infiniband/verbs.h ] || missing+=(libibverbs-dev)
install=()
if [ "$(id -u)" = 0 ]; then
  install=(--install)
  if [ "${#missing[@]}" -gt 0 ]; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
  fi
elif [ "${#missing[@]}" -gt 0 ]; then
  echo "test-rxe: install what is missing: apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 2
fi

summary=()
failed=0
# step NAME COMMAND...: runs one step and notes how it went and how long it took.
step() {
  local name=$1 began=$SECONDS verdict=ok
  shift
  printf '\n== %s\n' "$name"
  "$@" || { verdict=FAIL failed=1; }
  summary+=("$(printf '%-4s %4d s  %s' "$verdict" $((SECONDS - began)) "$name")")
  [ "$verdict" = ok ]
}

build() {
  export CGO_ENABLED=1
  mkdir -p "$work/one" "$work/two" "$work/cluster"
  go build -o "$work/rxevm" ./internal/rxevm || return
  for package in "${one_node[@]}"; do
    go test -c -tags rdma -o "$work/one/$(basename "$package").test" "$package" || return
  done
  echo "$worker_tests" >"$work/one/worker.flags"
  go build -tags rdma -o "$work/one/tenure" ./cmd/tenure || return
  for package in "$driven" "$both"; do
    go test -c -tags rdma -o "$work/two/$(basename "$package").test" "$package" || return
  done
  # Without the tables for debuggers: every node has it in memory.
  go test -c -tags rdma -ldflags '-s -w' -o "$work/cluster/node.test" "$cluster" || return
  "$work/one/tenure" certs --dir "$work/cluster/certs" \
    --host 10.77.0.1 --host 10.77.0.2 --host 10.77.0.3 node1 node2 node3 || return
  cp internal/rxevm/payload/tests.sh "$work/cluster/"
  cp internal/rxevm/payload/cluster.sh "$work/cluster/run"
  cp internal/rxevm/payload/tests.sh "$work/one/"
  cp internal/rxevm/payload/tests.sh "$work/two/"
  cp internal/rxevm/payload/one-node.sh "$work/one/run"
  cp internal/rxevm/payload/two-nodes.sh "$work/two/run"
  echo "7471 $(basename "$driven").test" >"$work/two/agents"
  echo "7471 $(basename "$driven").test $driven_tests" >"$work/two/driver"
  echo "$(basename "$both").test $both_tests" >"$work/two/both"
}

# The flags may be none or several words.
# shellcheck disable=SC2086
if step build build; then
  step "one node: tests, and latencies beside perftest's" "$work/rxevm" "${install[@]}" \
    --timeout 8m --program ib_read_lat,ib_write_lat,ib_atomic_lat ${ONE_NODE_FLAGS-} "$work/one" || true
  step "two nodes: tests over the wire" "$work/rxevm" "${install[@]}" \
    --nodes 2 --timeout 6m ${TWO_NODES_FLAGS-} "$work/two" || true
  step "two nodes: a cluster, the cost of leases on the wire, one node dies" "$work/rxevm" "${install[@]}" \
    --nodes 2 --dies 2 --timeout 4m ${CLUSTER_FLAGS-} "$work/cluster" || true
  step "three nodes: a cluster, one node dies" "$work/rxevm" "${install[@]}" \
    --nodes 3 --dies 3 --timeout 4m ${CLUSTER_FLAGS-} "$work/cluster" || true
fi

# SECONDS counts from the start of this shell.
verdict=ok total=$SECONDS
[ "$total" -le "$limit" ] || { verdict=FAIL failed=1; }
summary+=("$(printf '%-4s %4d s  total, at most %d s (TEST_RXE_SECONDS)' "$verdict" "$total" "$limit")")

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
