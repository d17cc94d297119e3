#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Small files and sequential data: on talosfs alone, on talosfs with one backup, and on a plain
# libfuse passthrough over the same disk, in one run. Usage: run.sh BUILD-FOLDER; needs root.
set -euo pipefail
OUT=$(cd "${1:-build}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../mounted/lib.sh"
bench=$OUT/tests/bench/fsbench
files=${FILES:-4000} mb=${MB:-512} rounds=${ROUNDS:-3}

example=/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c
if [ -e $example ]; then
	cp /usr/share/doc/libfuse3-dev/examples/passthrough_*.[ch] "$dir/"
	# shellcheck disable=SC2046
	gcc -O2 -w -DHAVE_STATX -o "$dir/passthrough_ll" "$dir/passthrough_ll.c" $(pkg-config --cflags --libs fuse3)
fi
bench_on() { # LABEL DIR
	"$bench" -l "$1" -n "$files" -w 1024 -m "$mb" -o create,openread,seqwrite,seqread "$2" | grep -v '^#'
}
mkdir "$dir/under" "$dir/pass"
for ((i = 0; i < rounds; i++)); do
	if [ -x "$dir/passthrough_ll" ]; then
		"$dir/passthrough_ll" -o source="$dir/under",cache=auto "$dir/pass"
		bench_on passthrough "$dir/pass"
		umount "$dir/pass"
		rm -rf "$dir/under"/*
	fi
	mkfs.talosfs --force --size 8G "$image_a" >/dev/null
	mount.talosfs "$image_a" "$A" -o "listen=$addr_a"
	bench_on talosfs "$A"
	alone=$(pid_of "$A")
	umount "$A"
	wait_for 20 gone "$alone"
	mkfs.talosfs --force --size 8G "$dir/c.tfs" >/dev/null
	mount.talosfs "$dir/c.tfs" "$A" -o "listen=$addr_a"
	mkfs.talosfs --force --backup "$image_b" >/dev/null
	mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b"
	wait_for 20 is "$B" replication.in_sync true
	bench_on talosfs+backup "$A"
	pids="$(pid_of "$A") $(pid_of "$B")"
	umount "$B"
	umount "$A"
	for p in $pids; do wait_for 20 gone "$p"; done
	rm -f "$image_a" "$image_b" "$dir/c.tfs"
done
