#!/bin/sh
# The cluster of the tests, as environment for whoever runs them:
#
#   eval "$(sh tests/cluster.sh)" && make test-kubernetes
#
# KUBECONFIG set: that one. Else LEPTONAI_TEST_CLUSTER, a command: with `up` it starts a cluster, or finds it running, and
# prints `export KUBECONFIG=...`; with `load FILE.tar` it imports an OCI archive into its nodes. Neither: there is none. A
# Kubernetes is no package of Debian, and building one takes longer than the tests: it is not attempted here.
set -eu
if [ -n "${KUBECONFIG:-}" ]; then
    [ -n "${LEPTONAI_TEST_LOAD:-}" ] || echo "NO IMAGES: set LEPTONAI_TEST_LOAD; tests that need pods are skipped" >&2
elif [ -n "${LEPTONAI_TEST_CLUSTER:-}" ]; then
    $LEPTONAI_TEST_CLUSTER up
    echo "export LEPTONAI_TEST_LOAD='$LEPTONAI_TEST_CLUSTER load'"
else
    echo "NO CLUSTER: set KUBECONFIG and LEPTONAI_TEST_LOAD, or LEPTONAI_TEST_CLUSTER" >&2
    exit 1
fi
