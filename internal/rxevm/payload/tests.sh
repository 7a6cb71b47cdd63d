# What the payloads share: running test binaries and telling how they went, and
# telling the other node something.

# run_tests NAME COMMAND...: runs a test binary with TEST_FLAGS and notes the
# result. One that passes no test, for whatever reason, has failed.
run_tests() {
  name=$1
  shift
  echo "=== $name"
  began=$(date +%s)
  verdict=ok
  # shellcheck disable=SC2086 # several flags
  "$@" ${TEST_FLAGS:--test.v -test.timeout=10m} 2>&1 | tee /tmp/output || verdict=FAIL
  passed=$(grep -c '^ *--- PASS' /tmp/output)
  [ "$passed" -gt 0 ] || verdict=FAIL
  printf '%-4s %-20s %s passed, %s failed, %s skipped, %s s\n' "$verdict" "$name" "$passed" \
    "$(grep -c '^ *--- FAIL' /tmp/output)" "$(grep -c '^ *--- SKIP' /tmp/output)" "$(($(date +%s) - began))" >>/tmp/results
  [ "$verdict" = ok ]
}

# summary prints the results of all run_tests.
summary() {
  [ -e /tmp/results ] || return 0
  echo "=== results on node $NODE of $NODES"
  cat /tmp/results
}

# What a node tells is a file of its small web server, so that it does not
# matter when the other one asks.
told=/run/told
word_port=7470

# tell WORD: from now on, await WORD returns on the other node.
tell() {
  if [ ! -d "$told" ]; then
    mkdir "$told"
    httpd -p "$word_port" -h "$told"
  fi
  echo "$1" >"$told/$1"
}

# await WORD NODE SECONDS: waits until that node tells the word. In a machine
# that is slow a try takes longer, so that this is a bound and no clock.
await() {
  for _ in $(seq "$((4 * $3))"); do
    [ "$(timeout 5 wget -q -O - "http://node$2:$word_port/$1" 2>/dev/null)" != "$1" ] || return 0
    usleep 250000
  done
  echo "node $2 does not tell $1"
  return 1
}
