#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Rounds of: a primary is stopped (SIGSTOP) with writes in flight, its backup promoted, the primary
# goes on: no late write lands, it learns of the new epoch and turns read-only, nothing that it
# acknowledged is missing.
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-5}
writer=$OUT/tests/mounted/fsync_writer
MOUNT_OPTIONS=timeout=2s

SIZE=1G start_pair --l0-size 256K
mkdir "$A/w"
talosfs sync "$A"
last=0
for ((i = 1; i <= rounds; i++)); do
	"$writer" "$A/w" $((last + 1)) >"$dir/acked" &
	w=$!
	dd if=/dev/zero of="$A/noise" bs=64k count="${NOISE:-2000}" 2>/dev/null &
	noise=$!
	sleep "0.$((RANDOM % 300 + 100))"
	old=$(pid_of "$A")
	kill -STOP "$old"
	talosfs promote "$B" >/dev/null
	position=$(status_of "$B" log.end)
	echo "$i" >"$B/promoted$i"
	kill -CONT "$old"
	wait_for 10 is "$A" role deposed
	wait $w || true
	wait $noise || true
	new=$(tail -n 1 "$dir/acked")
	last=${new:-$last}
	if touch "$A/late" 2>"$dir/err"; then fail "a deposed primary took a write"; fi
	grep -q 'Read-only' "$dir/err"
	"$writer" "$B/w" check "$last"
	[ "$(cat "$B/promoted$i")" = "$i" ] && [ "$(status_of "$B" log.end)" -gt "$position" ]
	umount "$A"
	wait_for 30 gone "$old"
	mount.talosfs "$image_a" "$A" -o "primary=$addr_b,listen=$addr_a,$MOUNT_OPTIONS"
	wait_for 20 is "$A" replication.in_sync true
	t=$A A=$B B=$t
	t=$image_a image_a=$image_b image_b=$t
	t=$addr_a addr_a=$addr_b addr_b=$t
done
echo "$rounds rounds, $last records acknowledged, all there; epoch $(status_of "$A" epoch)"
