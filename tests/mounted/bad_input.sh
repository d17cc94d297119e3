#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Every bad input gets one line that says what to do, a non-zero exit, and changes nothing.
. "$(dirname "$0")/lib.sh"

# refused PATTERN FILE COMMAND...: it fails with one line like PATTERN, and FILE stays as it is
refused() {
	local pattern=$1 file=$2 before after
	shift 2
	before=$([ ! -e "$file" ] || sha256sum <"$file")
	if timeout 60 "$@" >"$dir/out" 2>"$dir/err"; then fail "accepted: $*"; fi
	grep -Eq "$pattern" "$dir/err" || fail "$*: said '$(cat "$dir/err")', not '$pattern'"
	[ "$(grep -c "^$(basename "$1"):" "$dir/err")" = 1 ] || fail "$*: not one line: $(cat "$dir/err")"
	after=$([ ! -e "$file" ] || sha256sum <"$file")
	[ "$before" = "$after" ] || fail "$*: changed $file"
	echo "ok: $(tail -n 1 "$dir/err" | sed "s|$dir/||g")"
}

size=128M
mkfs.talosfs --size $size "$image_a" >/dev/null

echo "not an image" >"$dir/text"
refused 'not a talosfs image' "$dir/text" mount.talosfs "$dir/text" "$A"
refused 'no such file' "$dir/none" mount.talosfs "$dir/none" "$A"
cp "$image_a" "$dir/cut" && truncate -s 64M "$dir/cut"
refused 'smaller than its superblock' "$dir/cut" mount.talosfs "$dir/cut" "$A"
# With a good sum: only the version can be at fault.
cp "$image_a" "$dir/version" && superblock_edit "$dir/version" version 9
refused 'another version' "$dir/version" mount.talosfs "$dir/version" "$A"
cp "$image_a" "$dir/feature" && superblock_edit "$dir/feature" incompat 1073741824 # a bit that nobody uses
refused 'does not know' "$dir/feature" mount.talosfs "$dir/feature" "$A"
refused "unknown option 'nonsense'" "$image_a" mount.talosfs "$image_a" "$A" -o nonsense
refused 'timeout=x: not a value' "$image_a" mount.talosfs "$image_a" "$A" -o timeout=x
refused 'make the directory first' "$image_a" mount.talosfs "$image_a" "$dir/missing"
refused 'Not a directory' "$image_a" mount.talosfs "$image_a" "$dir/text"
mkdir "$dir/full" && touch "$dir/full/x"
refused 'not empty' "$image_a" mount.talosfs "$image_a" "$dir/full"
refused 'say how big' "$dir/new" mkfs.talosfs "$dir/new"
refused 'not a size' "$dir/new" mkfs.talosfs --size 12Q "$dir/new"
refused 'too small' "$dir/new" mkfs.talosfs --size 1M "$dir/new"
[ ! -e "$dir/new" ] || fail "a refused mkfs left a file"
refused 'holds a primary.*--force' "$image_a" mkfs.talosfs --size $size "$image_a"
refused 'holds a primary.*--force' "$image_a" mkfs.talosfs --backup "$image_a"
truncate -s 64M "$dir/ext" && mke2fs -q "$dir/ext"
refused 'holds ext2.*--force' "$dir/ext" mkfs.talosfs --size 64M "$dir/ext"

mkfs.talosfs --backup "$image_b" >/dev/null
refused 'mount it with -o primary' "$image_b" mount.talosfs "$image_b" "$B"
refused 'cannot reach' "$image_b" mount.talosfs "$image_b" "$B" -o "primary=$addr_a,timeout=500ms"
refused 'led its volume' "$image_a" mount.talosfs "$image_a" "$A" -o "primary=$addr_b"
# These come after the image was opened, which adds to its log.
refused 'insecure' "$dir/none" mount.talosfs "$image_a" "$A" -o "listen=0.0.0.0:$port"
refused 'HOST:PORT' "$dir/none" mount.talosfs "$image_a" "$A" -o listen=nowhere
unshare --mount sh -c "mount -t tmpfs none /dev && exec mount.talosfs $image_a $A" 2>"$dir/err" &&
	fail "mounted without /dev/fuse"
grep -q 'modprobe fuse' "$dir/err"
echo "ok: $(cat "$dir/err")"

# While it is mounted.
mount.talosfs "$image_a" "$A" -o "listen=$addr_a"
pid=$(pid_of "$A")
refused "in use by process $pid" "$dir/none" mount.talosfs "$image_a" "$B"
refused "in use by process $pid" "$dir/none" mkfs.talosfs --force --size $size "$image_a"
mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b"
wait_for 20 is "$B" replication.in_sync true
pid_b=$(pid_of "$B")
umount "$B"
wait_for 30 gone "$pid_b" # it writes its image until then
talosfs member drop "$A" "$addr_b" >/dev/null
umount "$A"
wait_for 30 gone "$pid"
refused 'holds a backup.*--force' "$image_b" mkfs.talosfs --backup "$image_b"

# A backup of another volume.
mkfs.talosfs --size $size "$dir/other" >/dev/null
mount.talosfs "$dir/other" "$A" -o "listen=$addr_a"
mount.talosfs "$image_b" "$B" -o "primary=$addr_a" 2>"$dir/err"
told() { talosfs status "$B" | grep -q 'another volume'; }
wait_for 10 told
echo "ok: a backup of another volume is mounted read-only and says so"
umount "$B"
umount "$A"

# A primary that cannot be reached: the backup is mounted read-only, says so, keeps trying.
mount.talosfs "$image_b" "$B" -o "primary=$addr_a" 2>"$dir/err"
grep -q 'cannot be reached so far' "$dir/err"
if touch "$B/x" 2>/dev/null; then fail "a backup took a write"; fi
mount.talosfs "$image_a" "$A" -o "listen=$addr_a"
wait_for 10 is "$B" replication.connected true
echo "ok: $(sed "s|$dir/||g" "$dir/err")"
refused 'no talosfs is mounted here' "$dir/none" talosfs status "$dir/full"
refused 'primary already' "$dir/none" talosfs promote "$A"
refused 'no such member' "$dir/none" talosfs member drop "$A" nobody

# A daemon that died leaves a mount in the way.
kill9 "$(pid_of "$A")"
refused 'umount' "$image_a" mount.talosfs "$image_a" "$A"
