#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A directory of very many names, COUNT of them: made, listed, sought in while others change it, removed; in
# linear time and constant memory. COUNT=1000000 for the long form.
. "$(dirname "$0")/lib.sh"
count=${COUNT:-${LONG:+1000000}}
count=${count:-20000}

mkfs.talosfs --size 4G "$image_a" >/dev/null
mount.talosfs "$image_a" "$A" -o cache=16M
again() { # [CACHE-SIZE]
	umount_wait "$A"
	mount.talosfs "$image_a" "$A" -o "cache=${1:-16M}"
}
resident() { awk '/^VmHWM/ { print $2 }' "/proc/$(pid_of "$A")/status"; }
median() { sort -n | sed -n 3p; }

# Four directories of a quarter, beside one of all: the same number of names each way.
quarter=$((count / 4)) count=$((count / 4 * 4))
mkdir "$A"/{all,1,2,3,4}
part "made, $count names" big_directory make "$A/all" $count
for i in 1 2 3 4; do big_directory make "$A/$i" $quarter; done

# The kernel has nothing yet: each listing comes from the daemon.
times() {
	local i n
	: >"$dir/one"
	: >"$dir/four"
	for ((n = 0; n < 5; n++)); do
		again
		big_directory list "$A/all" $count >>"$dir/one"
		for i in 1 2 3 4; do big_directory list "$A/$i" $quarter; done | awk '{ s += $1 } END { printf "%d\n", s }' >>"$dir/four"
	done
}
part listed times
one=$(median <"$dir/one") four=$(median <"$dir/four")
[ "$one" -lt $((four * 5 / 2)) ] || fail "listing $count names took $one ns, four times a quarter $four: not linear"
echo "listing $count names: $((one / 1000000)) ms; four times a quarter: $((four / 1000000)) ms"

again 1M # less than the inodes take, so they are read ahead, and again
before=$(resident)
requests=$(status_of "$A" fs.requests)
part 'listed with attributes' big_directory stat "$A/all" $count
requests=$(($(status_of "$A" fs.requests) - requests))
[ $requests -lt $((count / 3)) ] || fail "$requests requests for the attributes of $count names: readdirplus does not work"
grown=$(($(resident) - before))
echo "listed with attributes: $requests requests, $grown KiB more memory at most"

again
before=$(resident)
big_directory list "$A/all" $count >/dev/null
grown=$(($(resident) - before))
# The cache of 16 MiB fills, and 32 KiB for a request; a list of all names would show with a million of them.
[ $grown -lt 32768 ] || fail "a listing took $grown KiB of the daemon's memory"

part 'places in it stay' big_directory places "$A/all" $count
part removed big_directory remove "$A/all" $count
rmdir "$A/all"
[ "$(ls "$A")" = "$(printf '%s\n' 1 2 3 4)" ]
umount_wait "$A"
fsck.talosfs -n "$image_a" >"$dir/out" || fail "fsck: $(cat "$dir/out")"
