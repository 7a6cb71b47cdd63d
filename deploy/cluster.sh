#!/usr/bin/env bash
# Runs a cluster of processes on loopback addresses until Ctrl-C: one leasemgr,
# three workers, two gateways. Each is an ordinary process that may be killed and
# started again by hand; their logs, process ids and data are in DATA (default
# ./tenure-cluster).
#
# PORT is that of the leasemgr (default 7070); the gateways listen on the HTTP ports
# HTTP (default 8088) and HTTP+1. PROVIDER is verbs, shm or tcp (default: the best).
set -euo pipefail
cd "$(dirname "$0")/.."
data=${DATA:-./tenure-cluster} port=${PORT:-7070} http=${HTTP:-8088}
mkdir -p "$data"

# start NAME COMMAND...: starts a process and waits until it serves.
start() {
  local name=$1
  shift
  : >"$data/$name.log"
  "$@" >"$data/$name.log" 2>&1 &
  echo $! >"$data/$name.pid"
  for _ in $(seq 200); do
    if grep -q '^listening on ' "$data/$name.log"; then
      echo "$name $(sed -n 's/^listening on /listens on /p' "$data/$name.log" | head -n 1), process $(cat "$data/$name.pid")"
      return
    fi
    kill -0 "$(cat "$data/$name.pid")" 2>/dev/null || break
    sleep 0.1
  done
  echo "$name does not serve; the end of its log:" >&2
  tail -n 5 "$data/$name.log" >&2
  exit 1
}

# stop ends what runs, in the order in which nobody misses anybody.
stop() {
  trap - EXIT INT TERM
  for name in gateway-1 gateway-2 worker-1 worker-2 worker-3 leasemgr; do
    [ -e "$data/$name.pid" ] || continue
    pid=$(cat "$data/$name.pid")
    kill -TERM "$pid" 2>/dev/null || true
    # One that was started again by hand is no child of this shell.
    for _ in $(seq 100); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    rm -f "$data/$name.pid"
  done
  echo "stopped; the data is in $data"
}
trap stop EXIT INT TERM

start leasemgr bin/leasemgr --listen "127.0.0.1:$port" --data "$data/store"
for i in 1 2 3; do
  start "worker-$i" bin/worker --leasemgr "127.0.0.1:$port" --name "worker-$i" --provider "${PROVIDER-}" --cache "$data/cache-$i"
done
for i in 1 2; do
  start "gateway-$i" bin/gateway --leasemgr "127.0.0.1:$port" --http "127.0.0.1:$((http + i - 1))" --cache "$data/cache-gateway-$i"
done
cat <<END
try, from another terminal:
  bin/tenure deploy examples/bank
  bin/tenure put accounts/alice 100 accounts/bob 0
  bin/tenure invoke transfer '{"from":"alice","to":"bob","amount":30}'
  bin/tenure --server http://127.0.0.1:$((http + 1)) workers
  kill -9 \$(cat $data/worker-2.pid)
END
while :; do sleep 1; done
