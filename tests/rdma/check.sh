#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs tests/rdma/suite.sh on the first of: a real RDMA device of this machine, soft-RoCE in this
# machine's kernel, a throw-away guest with soft-RoCE (run-in-vm). Skipped only where none can be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
limit=${RDMA_SECONDS:-1200}

# The address of a real, active device's network interface; peers then share it.
real_address() {
	local line net
	rdma link show 2>/dev/null | grep 'state ACTIVE' | grep -o 'netdev [^ ]*' | while read -r line; do
		net=${line#netdev }
		ip -4 -o addr show dev "$net" | sed -n 's/.* inet \([0-9.]*\).*/\1/p'
	done | head -n 1
}

remove_rxe() {
	rdma link delete talos-rxe 2>/dev/null || true
	ip link delete talos-rnet 2>/dev/null || true
}
make_rxe() {
	modprobe rdma_rxe 2>/dev/null && ip link add talos-rnet type dummy 2>/dev/null &&
		ip addr add 10.77.0.1/24 dev talos-rnet && ip addr add 10.77.0.2/24 dev talos-rnet &&
		ip link set talos-rnet up && rdma link add talos-rxe type rxe netdev talos-rnet
}

address=$(real_address || true)
if [ -n "$address" ]; then
	echo "on a device of this machine, at $address"
	TALOS_TEST_HOSTS="$address $address" timeout "$limit" tests/rdma/suite.sh
	exit
fi
trap remove_rxe EXIT
if [ "$(id -u)" = 0 ] && make_rxe; then
	echo "on soft-RoCE in this kernel"
	TALOS_TEST_HOSTS="10.77.0.1 10.77.0.2" TALOS_TEST_RXE=talos-rxe:talos-rnet \
		timeout "$limit" tests/rdma/suite.sh
	exit
fi
remove_rxe
if ! "$here/run-in-vm" --mem 512 --timeout 120 -- test -e /dev/infiniband/rdma_cm; then
	echo "SKIP: no RDMA device, no rdma_rxe in this kernel, and no guest that has one could be started"
	exit 0
fi
# One processor: with two that kernel has been seen to crash ("scheduling while atomic").
echo "in a guest with soft-RoCE"
TALOS_TEST_HOSTS="10.77.0.1 10.77.0.2" TALOS_TEST_RXE="rxe0:rnet0 rxe1:rnet1" \
	"$here/run-in-vm" --cpus 1 --mem "${RDMA_MEM:-6000}" --timeout "$limit" -- tests/rdma/suite.sh
