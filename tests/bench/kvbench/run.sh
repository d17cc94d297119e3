#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The engine beside its peers. Usage: run.sh KVBENCH; QUICK=1: under three minutes; JSON=1: objects on
# stdout, nothing else; DIR: where the stores are made, on the device to measure (default: build's).
set -euo pipefail
kvbench=$1
dir=$(mktemp -d "${DIR:-$(dirname "$kvbench")}/kvbench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
json=${JSON:+--json}
failed=0
run() {
	echo "+ kvbench $*" >&2
	# shellcheck disable=SC2086
	"$kvbench" $json "$@" "$dir" || failed=1
}

if [ -n "${QUICK:-}" ]; then
	run --mix=sd --memory=64M --keys=4e5 --rounds=1 --seconds=1 --load-seconds=10 --settle=2 --store=16G
	run --mix=l --memory=64M --workloads=LA --durable --keys=1e5 --rounds=1 --seconds=1 --load-seconds=1 --settle=2 --store=4G
	exit $failed
fi
for mix in sd 4k l m md ld; do
	run --mix=$mix
done
run --mix=s --memory=128M --keys=12e6 # 3 times the memory; many keys
run --mix=sd --memory=192M --keys=3e6
for mix in sd l; do
	run --mix=$mix --uniform --workloads=LACE
	for threads in 2 4; do
		run --mix=$mix --threads=$threads --workloads=LABC
	done
done
for threads in 1 2 4; do
	run --mix=sd --threads=$threads --durable --workloads=LA --load-seconds=8
	run --mix=sd --threads=$threads --durable --workloads=L --load-seconds=8 --engines=bare
done
exit $failed
