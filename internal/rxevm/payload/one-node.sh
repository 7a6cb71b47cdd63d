#!/bin/sh
# run of the one-node payload: every *.test of the payload, then the latencies of
# perftest's C programs beside our own (the program tenure, if it is in the
# payload). Exits with 1 if a test fails, or if a test binary passes none.
#
# TEST_FLAGS are the flags of the test binaries; they need -test.v, which tells
# what passed.
set -o pipefail
. ./tests.sh
status=0

for binary in *.test; do
  [ -x "$binary" ] || continue
  run_tests "$binary" "./$binary" || status=1
done

# latency PROGRAM PORT ARGS: one line with the median between two processes on
# rxe0. perftest counts processor cycles, and in a machine that is emulated it
# sometimes cannot tell how long one is: then its figures are "inf".
latency() {
  program=$1 port=$2
  shift 2
  for _ in 1 2 3; do
    timeout 60 "$program" -d rxe0 -x 1 -p "$port" "$@" >/tmp/server 2>&1 &
    for _ in $(seq 100); do
      netstat -ltn | grep -q ":$port " && break
      usleep 50000
    done
    timeout 60 "$program" -d rxe0 -x 1 -p "$port" "$@" 127.0.0.1 >/tmp/client 2>&1 || break
    wait
    figures=$(grep -A 1 '#bytes' /tmp/client | tail -n 1)
    case $figures in *inf*) continue ;; esac
    echo "$figures" | awk -v p="$program" '{ printf "%-14s %5s bytes  median %8.2f us  99%% %9.2f us  (%s iterations)\n", p, $1, $5, $8, $2 }'
    return 0
  done
  echo "$program gave no figures:"
  cat /tmp/server /tmp/client
  return 1
}

# perftest ROUND: all three verbs.
perftest() {
  echo "=== perftest, round $1"
  latency ib_read_lat 18515 -s 64 -n 5000 || status=1
  latency ib_write_lat 18516 -s 64 -n 5000 || status=1
  latency ib_atomic_lat 18517 -n 5000 || status=1
}

# The order C, ours, C shows how much of a difference is the machine's mood.
if command -v ib_read_lat >/dev/null; then perftest 1; fi
if [ -x ./tenure ]; then
  echo "=== tenure bench verbs --provider verbs"
  timeout 120 ./tenure bench verbs --provider verbs || status=1
fi
if command -v ib_read_lat >/dev/null && [ -x ./tenure ]; then perftest 2; fi

summary
exit "$status"
