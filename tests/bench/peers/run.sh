#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# This project beside the replicated filesystems that one would use instead, each with two copies on
# this machine, in one run. Usage: run.sh BUILD-FOLDER; needs root.
#
#   QUICK=1        under three minutes: fewer operations, one round, a replica lost of ours alone
#   JSON=1         objects, one a line; otherwise tables, and ratios beside their bars
#   DIR=...        where all of them keep their data (default: /tmp)
#   PEERS="a b"    of gluster moosefs cephfs, those whose packages are installed (default: all)
#   OPS=a,b        those of fsbench, with one client (default: most of them, with one and some with four)
#   ROUNDS=n       (default 3)    LOSSES="kill hang"    LOSS_SECONDS=n  of a writer around each loss (default 110)
#
# All are mounted at once, and each operation runs on one after the other (fsbench). Everything lives in
# namespaces of its own, of mounts, network and processes: nothing can be reached from outside, and all
# ends with this script.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
list="talosfs ${PEERS:-gluster moosefs cephfs}"
for p in $list; do . "$here/$p.sh"; done

outside() {
	local dir p missing found=
	[ "$(id -u)" = 0 ] || { echo "SKIP: mounting needs root"; exit 77; }
	for p in $list; do
		missing=$("${p}_missing")
		if [ -n "$missing" ]; then echo "without $p: install $missing" >&2; else found+=" $p"; fi
	done
	dir=$(mktemp -d "${DIR:-/tmp}/talosfs-peers.XXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf '$dir'" EXIT
	PEERS_INSIDE=$found unshare --mount --net --pid --fork --kill-child --mount-proc \
		"$here/run.sh" "$1" "$dir" >"$dir/log" 2>&1 || { tail -n 40 "$dir/log" >&2; exit 1; }
	if [ -n "${JSON:-}" ]; then cat "$dir/lines"; else "$here/report.py" "$dir/lines"; fi
}

# --- inside ------------------------------------------------------------------------------------------------

network() {
	local i
	ip link set lo up
	for i in 1 2 3; do ip addr add "10.77.0.$i/24" dev lo; done
	cp /etc/hosts "$dir/hosts"
	echo "10.77.0.1 peer-a" >>"$dir/hosts"
	mount --bind "$dir/hosts" /etc/hosts
}
make_tar() {
	python3 - "$dir/src/tree" "$tar_files" <<'END'
import os, sys
tree, count = sys.argv[1], int(sys.argv[2])
data = os.urandom(65536)
sizes = (300, 700, 900, 1500, 2500, 4000, 6000, 9000, 14000, 40000)
for i in range(count):
    folder = f"{tree}/{i // 1000}/{i // 50 % 20}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/file{i}.c", "wb") as f:
        f.write(data[: sizes[i * 7 % 10]])
END
	tar -C "$dir/src" -cf "$dir/tree.tar" tree
	rm -rf "$dir/src"
}
targets() { # -> $targets
	local p pid spec
	targets=()
	for p in $PEERS_INSIDE; do
		spec=$p=$dir/$p/mnt
		for pid in $("${p}_servers"); do spec+=,pid=$pid; done
		targets+=("$spec")
	done
}
# A writer's longest wait while a replica is killed or hangs; then it is gone for good.
lose_replica() { # PEER kill|hang
	local p=$1 how=$2 signal=KILL pid writer i
	[ "$how" = kill ] || signal=STOP
	pid=$("${p}_replica" "$dir/$p")
	mkdir "$dir/$p/mnt/loss"
	"$OUT/stall" "$dir/$p/mnt/loss" "$loss_seconds" >"$dir/loss" 2>"$dir/loss.err" &
	writer=$!
	for ((i = 0; i < 600; i++)); do
		if grep -q writing "$dir/loss.err"; then break; fi
		sleep 0.1
	done
	sleep 3
	kill -"$signal" "$pid"
	wait $writer || echo "$p, $how: acknowledged files are missing or wrong"
	echo "{\"fs\": \"$p\", \"loss\": \"$how\", $(cat "$dir/loss")}" >>"$dir/lines"
}
inside() {
	local p
	mount --make-rprivate /
	network
	make_tar
	for p in $PEERS_INSIDE; do
		echo "== $p"
		mkdir "$dir/$p"
		"${p}_up" "$dir/$p"
	done
	targets
	for ((round = 0; round < rounds; round++)); do
		"$OUT/fsbench" "${sizes[@]}" --tar="$dir/tree.tar,$tar_files" --ops="$ops" "${targets[@]}" >>"$dir/lines"
		[ -z "${OPS:-}" ] || continue
		"$OUT/fsbench" "${sizes[@]}" --threads=4 --ops=create,openread,rename,link,unlink,fsync "${targets[@]}" >>"$dir/lines"
	done
	for p in $PEERS_INSIDE; do
		[ -z "${QUICK:-}" ] || [ "$p" = talosfs ] || continue
		# What hangs goes first where that is the last thing done to it.
		for how in $losses; do lose_replica "$p" "$how"; done
	done
}

if [ -z "${PEERS_INSIDE:-}" ]; then
	outside "$(cd "$1" && pwd)"
	exit
fi
OUT=$1 dir=$2
PATH=$OUT:$PATH
rounds=${ROUNDS:-3} losses=${LOSSES:-hang} loss_seconds=${LOSS_SECONDS:-110} tar_files=4000
sizes=(--files=2400 --fsyncs=300 --stream=256)
if [ -n "${QUICK:-}" ]; then
	rounds=${ROUNDS:-1} loss_seconds=${LOSS_SECONDS:-10} tar_files=500
	sizes=(--files=400 --fsyncs=60 --stream=64)
fi
ops=${OPS:-create,openread,fstat,setxattr,getxattr,rename,link,unlink,fsync,seqwrite,seqread,untar,rm-rf}
inside
