#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Rounds of: a writer with fsync, kill -9 of the daemon at a random moment, remount: nothing
# acknowledged is missing.
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-20}
writer=$OUT/tests/mounted/fsync_writer

mkfs.talosfs --size 2G --l0-size 256K "$image_a" >/dev/null
last=0
for ((i = 1; i <= rounds; i++)); do
	mount.talosfs "$image_a" "$A"
	mkdir -p "$A/w"
	"$writer" "$A/w" check "$last"
	write_until_killed
done
mount.talosfs "$image_a" "$A"
"$writer" "$A/w" check "$last"
[ "$last" -gt 0 ]
echo "$rounds rounds, $last records acknowledged, all there"
