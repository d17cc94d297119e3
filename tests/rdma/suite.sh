#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What `make check-rdma` runs where there is an RDMA device; tests/rdma/check.sh finds such a place.
# TALOS_TEST_HOSTS: two addresses that devices serve. LONG=1: the long forms; give them more time
# (RDMA_SECONDS, STEP_SECONDS).
set -euo pipefail
cd "$(dirname "$0")/../.."
export OUT=${OUT:-$PWD/build} TALOS_TEST_TRANSPORT=rdma
: "${TALOS_TEST_HOSTS:?}"
ulimit -l unlimited 2>/dev/null || true
# The leak check stops all threads by ptrace, which hangs in user-mode Linux; it is made over TCP.
# A small quarantine: user-mode Linux maps each page of a process on its own, and where the machine
# allows no more mappings (vm.max_map_count, 65530) the process faults on one page for ever.
export ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16:thread_local_quarantine_size_kb=64

run() {
	local began=$SECONDS
	echo "== $*"
	timeout "${STEP_SECONDS:-400}" "$@" >/tmp/rdma-suite.log 2>&1 </dev/null || {
		cat /tmp/rdma-suite.log
		echo "FAIL: $*"
		exit 1
	}
	grep -hE '^\[  PASSED|^SEED=|^SKIP|rounds,|losses|^tree:|^PASS' /tmp/rdma-suite.log || true
	echo "   $((SECONDS - began)) s"
}
# Also as the sanitizers built them, where they did.
for build in "$OUT" "$OUT-address-undefined" "$OUT-thread"; do
	[ ! -x "$build/tests/unit/test_repl" ] || {
		run "$build/tests/unit/test_transport"
		run "$build/tests/unit/test_repl"
		run "$build/tests/unit/test_rejoin"
	}
done
if [ -c /dev/fuse ]; then
	run tests/rdma/auto.sh
	SMALL=$([ "${LONG:-}" ] || echo 1) run tests/mounted/e2e_replication.sh
	run tests/mounted/blocked.sh
	ROUNDS=$([ "${LONG:-}" ] && echo 20 || echo 5) run tests/mounted/promote_rounds.sh
	ROUNDS=$([ "${LONG:-}" ] && echo 50 || echo 5) NOISE=100 run tests/mounted/fencing.sh
	TALOS_TEST_SECRET=1 ROUNDS=2 run tests/mounted/promote_rounds.sh
	SECONDS_LONG=$([ "${LONG:-}" ] && echo 600 || echo 30) run tests/rdma/link_loss.sh
fi
echo "replication over RDMA verbs: all passed"
