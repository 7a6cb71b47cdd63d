#!/bin/sh
# run of the one-node payload: every *.test of the payload, then the latencies of
# perftest's C programs beside our own (the program tenure, if it is in the
# payload). Exits with 1 if a test fails, or if a test binary passes none.
#
# TEST_FLAGS are the flags of the test binaries; they need -test.v, which tells
# what passed. X.test gets those of the file X.flags as well, if there is one. They
# find in their environment TENURE_RDMA_REQUIRED=1: there is a device, so a test
# that finds none fails instead of being skipped; and TENURE_TEST_PROVIDER=verbs.
set -o pipefail
export TENURE_RDMA_REQUIRED=1 TENURE_TEST_PROVIDER=verbs
. ./tests.sh
status=0

for binary in *.test; do
  [ -x "$binary" ] || continue
  flags=
  [ ! -e "${binary%.test}.flags" ] || flags=$(cat "${binary%.test}.flags")
  # shellcheck disable=SC2086 # several flags
  run_tests "$binary" "./$binary" $flags || status=1
done

# note WHOSE VERB MICROSECONDS: keeps a figure for compare.
note() { echo "$@" >>/tmp/latencies; }

# latency VERB PROGRAM PORT ARGS...: one line with the median between two
# processes on rxe0. perftest counts processor cycles, and in a machine that is
# emulated it sometimes cannot tell how long one is: then its figures are "inf".
latency() {
  verb=$1 program=$2 port=$3
  shift 3
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
    note perftest "$verb" "$(echo "$figures" | awk '{ print $5 }')"
    return 0
  done
  echo "$program gave no figures:"
  cat /tmp/server /tmp/client
  return 1
}

# theirs and ours measure all verbs once.
theirs() {
  echo "=== perftest"
  latency READ ib_read_lat 18515 -s 64 -n 5000 || status=1
  latency WRITE ib_write_lat 18516 -s 64 -n 5000 || status=1
  latency CAS ib_atomic_lat 18517 -A CMP_AND_SWAP -n 5000 || status=1
}

ours() {
  echo "=== tenure bench verbs --provider verbs"
  timeout 120 ./tenure bench verbs --provider verbs --duration 1s 2>&1 | tee /tmp/bench || status=1
  # The table's third column is the median, with its unit.
  for verb in READ CAS; do
    note tenure "$verb" "$(awk -F '│' -v verb="$verb" '
      { gsub(/ /, "", $2); gsub(/ /, "", $4) }
      $2 == verb { u = $4; v = $4; gsub(/[0-9.]/, "", u); gsub(/[^0-9.]/, "", v); print v * (u == "ns" ? 0.001 : u == "ms" ? 1000 : 1) }' /tmp/bench)"
  done
}

# compare prints the best median of each side, and judges nothing: in a machine
# that is emulated on a busy host the same program differs from itself by more than
# ours from theirs, so a bound would be either useless or fail by chance. WRITE is left out: ib_write_lat
# tells half of a round trip between processes that look at memory, which is not
# the time to a completion.
compare() {
  echo "=== best medians, one node"
  awk '
    !(($1, $2) in best) || $3 < best[$1, $2] { best[$1, $2] = $3 }
    END {
      n = split("READ CAS", verbs, " ")
      for (i = 1; i <= n; i++) {
        v = verbs[i]
        c = best["perftest", v]; t = best["tenure", v]
        if (c > 0 && t > 0) printf "%-4s  tenure %7.2f us  perftest %7.2f us  ratio %.2f\n", v, t, c, t / c
      }
    }' /tmp/latencies
}

# In turns: a machine that is emulated has moods, which last for seconds.
if command -v ib_read_lat >/dev/null; then
  theirs
  if [ -x ./tenure ]; then
    for _ in 1 2; do
      ours
      theirs
    done
    compare
  fi
fi

summary
exit "$status"
