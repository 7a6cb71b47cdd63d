#!/bin/sh
# run of the two-node payload. What it runs is in three files, one program a
# line; a file may be missing.
#
#   both     PROGRAM [ARGUMENT...]        a test binary for both nodes at the same
#                                         time, which finds its peer by itself
#   agents   PORT PROGRAM [ARGUMENT...]   node 2 starts it, and ends it at the end
#   driver   PORT PROGRAM [ARGUMENT...]   a test binary that node 1 runs while the
#                                         agents are there
#
# An agent finds TENURE_RDMA_AGENT=0.0.0.0:PORT in its environment, a driver
# TENURE_RDMA_REMOTE=10.77.0.2:PORT; NODE, NODES and IP are there for all, and so
# is TENURE_RDMA_REQUIRED=1: a test that finds no device fails instead of being
# skipped. The exit status is 1 if a test fails, a test binary passes no test, or an agent
# does not listen on its port or ends by itself.
set -o pipefail
export TENURE_RDMA_REQUIRED=1
. ./tests.sh
status=0

together() {
  while read -r program arguments <&3; do
    # shellcheck disable=SC2086 # several arguments
    run_tests "$program" "./$program" $arguments || status=1
  done 3<both
}

drive() {
  while read -r port program arguments <&3; do
    # shellcheck disable=SC2086 # several arguments
    TENURE_RDMA_REMOTE=10.77.0.2:$port run_tests "$program" "./$program" $arguments || status=1
  done 3<driver
}

# serve starts the agents and returns when all listen.
serve() {
  agents=
  while read -r port program arguments <&3; do
    # shellcheck disable=SC2086 # several arguments
    TENURE_RDMA_AGENT=0.0.0.0:$port "./$program" $arguments &
    agents="$agents $!:$program"
    tries=0
    until netstat -ltn | grep -q ":$port "; do
      tries=$((tries + 1))
      if [ "$tries" -gt 600 ] || ! kill -0 $! 2>/dev/null; then
        echo "the agent $program does not listen on port $port"
        return 1
      fi
      usleep 100000
    done
  done 3<agents
}

dismiss() {
  for agent in $agents; do
    if ! kill "${agent%%:*}" 2>/dev/null; then
      echo "the agent ${agent#*:} ended before it was told to"
      status=1
    fi
  done
  wait
}

if [ -e both ]; then together; fi
if [ "$NODE" = 1 ]; then
  if [ -e driver ]; then
    await serving 2 120 || exit 1
    drive
  fi
  tell done
else
  if [ -e agents ]; then
    serve || exit 1
  fi
  tell serving
  # As long as the drivers take. The harness bounds that, and ends this node if
  # node 1 fails.
  await done 1 3600 || status=1
  dismiss
fi
summary
exit "$status"
