#!/bin/sh
# run of the payload of a cluster over several nodes: node.test, which runs on all
# of them at the same time, in the roles that it chooses by NODE. The last node
# dies on the way, so the harness is told --dies NODES. certs has the certificates.
set -o pipefail
export TENURE_RDMA_REQUIRED=1 TENURE_TEST_CERTS=/payload/certs
. ./tests.sh
status=0
run_tests "node $NODE" ./node.test -test.run='^TestVerbsCluster$' || status=1
summary
exit "$status"
