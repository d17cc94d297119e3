#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# fsck.talosfs and dump.talosfs on images that a mount made: exit codes, by fsck(8), after a kill, of a
# backup, with damage.

# fsck(8) looks for its helpers in /sbin: ours goes there in a mount namespace of this test.
if [ -z "${IN_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ]; then
	IN_NAMESPACE=1 exec unshare --mount --propagation slave "$0"
fi
. "$(dirname "$0")/lib.sh"
mount -t tmpfs none /mnt
cp -a /sbin/. /mnt/
cp "$OUT/fsck.talosfs" /mnt/
mount --move /mnt "$(realpath /sbin)"

# status_is CODE COMMAND...
status_is() {
	local want=$1 code=0
	shift
	"$@" >"$dir/out" 2>&1 || code=$?
	[ $code = "$want" ] || { cat "$dir/out"; fail "$*: exit $code, not $want"; }
}
# flip OFFSET: invert the byte there
flip() {
	python3 -c '
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2])); b = f.read(1)[0]
    f.seek(int(sys.argv[2])); f.write(bytes([b ^ 255]))' "$image_a" "$1"
}

start_pair
mkdir -p "$A/some/folder"
head -c 3000000 /dev/urandom >"$A/some/file"
for i in $(seq 200); do echo "$i" >"$A/some/folder/$i"; done
setfattr -n user.x -v 1 "$A/some/file" 2>/dev/null || true
sync "$A/some/file"
wait_for 10 caught_up
status_is 8 fsck.talosfs "$image_a"
grep -q "in use" "$dir/out"
status_is 0 dump.talosfs "$image_a" superblocks
echo "a mounted image is refused, but shown"

pid_b=$(pid_of "$B")
umount "$B"
wait_for 10 gone "$pid_b"
status_is 0 fsck.talosfs "$image_b"
kill9 "$(pid_of "$A")"
umount "$A"
before=$(md5sum <"$image_a")
status_is 0 fsck.talosfs -n "$image_a"
grep -q "not unmounted in order" "$dir/out"
[ "$(md5sum <"$image_a")" = "$before" ]
echo "a backup is clean, and so is a primary that was killed; nothing was written"

status_is 0 fsck -t talosfs "$image_a"
status_is 16 fsck.talosfs --nonsense "$image_a"
status_is 8 fsck.talosfs "$dir/nothing"
head -c 1000000 /dev/zero >"$dir/zeros"
status_is 8 fsck.talosfs "$dir/zeros"
echo "fsck(8) finds it; exit codes are those of fsck(8)"

[ "$(fsck.talosfs --json "$image_a" | json exit_status)" = 0 ]
[ "$(fsck.talosfs --json "$image_a" | json filesystem.names)" = 203 ]
ino=$(dump.talosfs --json "$image_a" path /some/file | json inode.number)
[ "$(dump.talosfs --json "$image_a" inode "$ino" | json inode.pairs.0.size)" = 3000000 ]
status_is 0 dump.talosfs "$image_a" manifest
status_is 0 dump.talosfs "$image_a" slots
status_is 0 dump.talosfs "$image_a" log 0
status_is 1 dump.talosfs "$image_a" path /nothing
echo "JSON of both"

flip 200
status_is 4 fsck.talosfs "$image_a"
grep -q "^repairable: copy 0 of the superblock" "$dir/out"
status_is 1 fsck.talosfs -p "$image_a"
status_is 0 fsck.talosfs "$image_a"
echo "a superblock is repaired"

place=$(dump.talosfs --json "$image_a" inode "$ino" | json inode.data.entries.0.data_position)
slot=$(dump.talosfs --json "$image_a" slots | python3 -c '
import json, sys
n = int(sys.argv[1])
print([s["device_offset"] for s in json.load(sys.stdin)["slots"] if s["kind"] == "log" and s["segment"] == n][0])' \
	$((place / 2097152)))
flip $((slot + place % 2097152 + 10000))
status_is 4 fsck.talosfs -p "$image_a"
grep -q "^damaged: .*device offset" "$dir/out"
echo "damage in a file is reported with its place"

# A signal ends it at once; what it was at is whole, or as it was.
interrupt() {
	local p code=0
	fsck.talosfs -p --threads 1 --memory 1 "$image_a" >"$dir/out" 2>&1 &
	p=$!
	sleep "0.0$((RANDOM % 10))"
	kill -TERM $p
	wait $p || code=$?
	# 143: before it took the signal; 4: it was faster
	[ $code = 32 ] || { [ $code = 143 ] || [ $code = 4 ] || fail "interrupted, it ended with $code"; return 1; }
}
wait_for 60 interrupt
status_is 4 fsck.talosfs "$image_a"
echo "a signal ends it, with 32"

# Block devices: made, mounted, refused while mounted, checked and repaired.
umount_loop() { losetup -d "$loop" 2>/dev/null || true; }
rm "$image_a"
truncate -s 256M "$image_a"
if loop=$(losetup -f --show "$image_a" 2>"$dir/err"); then
	trap 'umount_loop; cleanup' EXIT
	mkfs.talosfs "$loop" >/dev/null
	mount.talosfs "$loop" "$A"
	echo text >"$A/file"
	status_is 8 fsck.talosfs "$loop"
	umount_wait "$A"
	status_is 0 fsck.talosfs "$loop"
	status_is 0 fsck -t talosfs "$loop"
	python3 -c '
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(200); b = f.read(1)[0]
    f.seek(200); f.write(bytes([b ^ 255]))' "$loop"
	status_is 4 fsck.talosfs "$loop"
	status_is 1 fsck.talosfs -p "$loop"
	mount.talosfs "$loop" "$A"
	[ "$(cat "$A/file")" = text ]
	umount_wait "$A"
	# A device that lost its end.
	losetup -d "$loop"
	truncate -s 128M "$image_a"
	loop=$(losetup -f --show "$image_a")
	status_is 4 fsck.talosfs -p "$loop"
	losetup -d "$loop"
	echo "block devices"
else
	echo "SKIP: no loop devices: $(cat "$dir/err")"
fi
