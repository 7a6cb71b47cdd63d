#!/usr/bin/env bash
# Runs everything that needs a real RDMA device, on SoftRoCE in virtual machines:
# first on one node, then on two. `make test-rxe` calls it. It takes a C compiler
# and Debian's packages, and installs what is missing if it runs as root.
#
# ONE_NODE_FLAGS and TWO_NODES_FLAGS go to rxevm, for instance "--logs DIR".
#
# All of it may take TEST_RXE_SECONDS, 600 unless that is set: more is a failure,
# although every test passed. On two cores with nothing else to do it takes a good
# third of that. Set it where the machine is slower or busy, or where the first
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
  mkdir -p "$work/one" "$work/two"
  go build -o "$work/rxevm" ./internal/rxevm || return
  for package in "${one_node[@]}"; do
    go test -c -tags rdma -o "$work/one/$(basename "$package").test" "$package" || return
  done
  echo "$worker_tests" >"$work/one/worker.flags"
  go build -tags rdma -o "$work/one/tenure" ./cmd/tenure || return
  for package in "$driven" "$both"; do
    go test -c -tags rdma -o "$work/two/$(basename "$package").test" "$package" || return
  done
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
fi

# SECONDS counts from the start of this shell.
verdict=ok total=$SECONDS
[ "$total" -le "$limit" ] || { verdict=FAIL failed=1; }
summary+=("$(printf '%-4s %4d s  total, at most %d s (TEST_RXE_SECONDS)' "$verdict" "$total" "$limit")")

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
