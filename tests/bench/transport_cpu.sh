#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# CPU time of primary and backup for what they replicate, verbs beside TCP, on the same load in one
# run. Needs two addresses that RDMA devices serve (TALOS_TEST_HOSTS); in a guest:
#   tests/rdma/run-in-vm --mem 4096 -- env TALOS_TEST_HOSTS="10.77.0.1 10.77.0.2" tests/bench/transport_cpu.sh
# Soft-RoCE does in the kernel's own threads what a real adapter does in hardware: these figures
# leave that out, and say nothing of speed.
. "$(dirname "$0")/../mounted/lib.sh"
bench=$OUT/tests/bench/fsbench
files=${FILES:-2000} mb=${MB:-128}

# Microseconds of CPU that a process has used.
cpu_of() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%d\n", ($12 + $13) * 1000000 / hz }' "/proc/$1/stat"; }

# phase NAME UNITS COMMAND...: CPU of both for each unit of what COMMAND does
phase() {
	local name=$1 units=$2 a b
	shift 2
	a=$(cpu_of "$pid_a") b=$(cpu_of "$pid_b")
	"$@" >/dev/null
	talosfs sync "$A"
	wait_for 60 caught_up
	awk -v t="$transport" -v n="$name" -v u="$units" -v a=$(($(cpu_of "$pid_a") - a)) -v b=$(($(cpu_of "$pid_b") - b)) \
		'BEGIN { printf "{\"transport\":\"%s\",\"what\":\"%s\",\"units\":%d,\"primary_cpu_us\":%.1f,\"backup_cpu_us\":%.1f}\n", t, n, u, a / u, b / u }'
}

idle() { sleep 10; }

for transport in tcp rdma tcp rdma; do
	rm -f "$image_a" "$image_b"
	start_pair --l0-size 64M
	pid_a=$(pid_of "$A") pid_b=$(pid_of "$B")
	phase "small file (create, 1 KiB, close)" "$files" "$bench" -n "$files" -w 1024 -o create "$A"
	phase "MiB written" "$mb" "$bench" -m "$mb" -b 1048576 -o seqwrite "$A"
	phase "index flushed, merged and shipped" 1 talosfs debug compact "$A"
	phase "second of idling" 10 idle
	umount "$B" && umount "$A"
	wait_for 20 gone "$pid_a" && wait_for 20 gone "$pid_b"
done
