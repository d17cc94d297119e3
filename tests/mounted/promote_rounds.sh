#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Rounds of: a writer with fsync, kill -9 of the primary at a random moment, promotion of the
# backup: nothing acknowledged is missing there. The old primary then becomes the new backup, with what it
# has: it fetches only what it lacks.
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-20}
writer=$OUT/tests/mounted/fsync_writer

SIZE=2G start_pair --l0-size 256K
mkdir "$A/w"
talosfs sync "$A"
last=0
for ((i = 1; i <= rounds; i++)); do
	write_until_killed
	talosfs promote "$B" >/dev/null
	"$writer" "$B/w" check "$last"
	# $A is the primary's mount in each round: the roles change.
	mount.talosfs "$image_a" "$A" -o "primary=$addr_b,listen=$addr_a"
	wait_for 20 is "$A" replication.in_sync true
	[ "$(status_of "$A" replication.copy_total_bytes)" = 0 ] || fail "the old primary was copied anew"
	t=$A A=$B B=$t
	t=$image_a image_a=$image_b image_b=$t
	t=$addr_a addr_a=$addr_b addr_b=$t
done
"$writer" "$A/w" check "$last"
wait_for 20 caught_up
"$writer" "$B/w" check "$last"
[ "$last" -gt 0 ]
echo "$rounds rounds, $last records acknowledged, all there; epoch $(status_of "$A" epoch)"
