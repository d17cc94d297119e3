#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The evaluation of replication. Usage: run.sh BUILD-FOLDER. QUICK=1: under three minutes; JSON=1:
# objects on stdout, nothing else; DIR: where the stores are made, on the device to measure (default:
# the build folder); PLOTS: where plots go. What is run: MIXES, GROWTHS, MODES, BACKUPS, WORKLOADS, SECONDS_EACH,
# SCALE (percent of the keys), ROUNDS, PARTS. HOSTS and TRANSPORT=rdma where there is such a device. See README.md.
set -euo pipefail
out=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d "${DIR:-$out}/replbench.XXXXXX")
cleanup() {
	for at in "$dir"/*/; do umount -l "$at" 2>/dev/null || true; done
	rm -rf --one-file-system "$dir"
}
trap cleanup EXIT
results=$dir/results
failed=0
read -r -a hosts <<<"${HOSTS:-}"

if [ -n "${QUICK:-}" ]; then
	: "${MIXES:=s sd l}" "${GROWTHS:=8}" "${BACKUPS:=1}" "${WORKLOADS:=LA}" "${SECONDS_EACH:=1}" "${SCALE:=20}" "${SETTLE:=0}"
	quick=(--l0=512K --segment=256K)
fi
mixes=${MIXES:-s m l sd md ld} growths=${GROWTHS:-8 4 12 16} backups=${BACKUPS:-1 2}
modes=${MODES:-none lean fresh build-index}
seconds=${SECONDS_EACH:-5} scale=${SCALE:-100} rounds=${ROUNDS:-1} parts=${PARTS:-engine apart together rewrite mount}
common=(--settle="${SETTLE:-30}" --seconds="$seconds" ${quick[@]+"${quick[@]}"})
[ "${TRANSPORT:-tcp}" = tcp ] || common+=("--transport=$TRANSPORT")

# So many that there are at least two levels below what flushes write.
keys() {
	local n
	case $1 in s) n=2000000 ;; m) n=1000000 ;; l) n=400000 ;; sd) n=700000 ;; md) n=700000 ;; ld) n=500000 ;; esac
	echo $((n * scale / 100))
}
run() { # MIX OPTION...
	echo "+ replbench --mix=$*" >&2
	local mix=$1
	shift
	"$out/replbench" --mix="$mix" --keys="$(keys "$mix")" "${common[@]}" "$@" "$dir" ${hosts[@]+"${hosts[@]}"} \
		2>"$dir/err" >>"$results" || { cat "$dir/err" >&2; failed=1; }
}
part() { [[ " $parts " = *" $1 "* ]]; }
# All ways to replicate, one after the other: what else the machine does hits all alike.
each_mode() { # MIX GROWTH OPTION...
	local mix=$1 growth=$2 mode n
	shift 2
	for mode in $modes; do
		for n in $backups; do
			[ "$mode" != none ] || [ "$n" = "${backups%% *}" ] || continue
			run "$mix" --growth="$growth" --mode="$mode" --backups="$n" "$@"
		done
	done
}
for ((round = 0; round < rounds; round++)); do
	for growth in $growths; do
		for mix in $mixes; do
			! part engine || each_mode "$mix" "$growth" --workloads="${WORKLOADS:-LABCD}"
		done
	done
	for mix in $mixes; do
		! part apart || modes="none lean" backups=1 each_mode "$mix" 8 --workloads=L --processors=apart
		! part together || modes="lean fresh build-index" backups=1 each_mode "$mix" 8 --workloads=LA --processors=together
	done
done
for mix in $mixes; do
	! part rewrite || results=$dir/rewrite run "$mix" --workloads=L --rewrite --settle=0
done
! part rewrite || grep '"level": "rewrite"' "$dir/rewrite" >>"$results" || failed=1
! part mount || "$here/mounted.py" "$out" "$dir" "${QUICK:+quick}" >>"$results" || failed=1
if [ -n "${JSON:-}" ]; then
	cat "$results"
else
	"$here/report.py" ${PLOTS:+--plots="$PLOTS"} "$results"
fi
exit $failed
