#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# mount(8), fstab, fuse.talosfs, umount and mount at once, SIGTERM, the foreground.

# mount(8) looks for its helpers in /sbin only: ours go there in a mount namespace of this test.
if [ -z "${IN_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ]; then
	IN_NAMESPACE=1 exec unshare --mount --propagation private "$0"
fi
. "$(dirname "$0")/lib.sh"
mount -t tmpfs none /mnt
cp -a /sbin/. /mnt/
cp "$OUT/mount.talosfs" "$OUT/talosfs" /mnt/
mount --move /mnt "$(realpath /sbin)"

mkfs.talosfs --size 256M "$image_a" >/dev/null
mount -t talosfs "$image_a" "$A" -o "listen=$addr_a,noatime"
echo 1 >"$A/one"
for _ in 1 2 3 4 5; do # at once: the helper waits for the daemon that is ending
	umount "$A"
	mount -t talosfs "$image_a" "$A"
done
[ "$(cat "$A/one")" = 1 ]
umount "$A"
echo "mount -t talosfs works, many times in a row"

echo "$image_a $A talosfs noauto,listen=$addr_a 0 0" >"$dir/fstab"
mount -T "$dir/fstab" "$A"
[ "$(cat "$A/one")" = 1 ]
umount "$A"
echo "an fstab line works"

# The kernel collects writes, unless they may have to wait for a backup without end.
collects() {
	mount.talosfs "$image_a" "$A" ${2:+-o "$2"}
	is "$A" fs.writeback "$1" || fail "with '$2' writeback is $(status_of "$A" fs.writeback)"
	umount_wait "$A"
}
collects true ""
collects false nowriteback
collects false "listen=$addr_a"
collects true "listen=$addr_a,writeback"
mkfs.talosfs --backup "$image_b" >/dev/null
mount.talosfs "$image_a" "$A" -o "listen=$addr_a"
mount.talosfs "$image_b" "$B" -o "primary=$addr_a"
is "$B" fs.writeback false
wait_for 20 is "$B" replication.in_sync true
umount_wait "$B"
umount_wait "$A"
collects false ""
rm "$image_b"
mkfs.talosfs --size 256M --force --policy available "$image_a" >/dev/null
collects true "listen=$addr_a"
mkfs.talosfs --size 256M --force "$image_a" >/dev/null
mount.talosfs "$image_a" "$A"
echo 1 >"$A/one"
umount "$A"
echo "who may have to wait for a backup has no writeback"

mount -t fuse.talosfs "$image_a" "$A" -o "listen=$addr_a"
[ "$(cat "$A/one")" = 1 ]
echo "mount -t fuse.talosfs works"

pid=$(pid_of "$A")
echo 2 >"$A/two"
kill -TERM "$pid"
wait_for 30 gone "$pid"
if grep -q " $A " /proc/mounts; then fail "still mounted after SIGTERM"; fi
mount.talosfs -f "$image_a" "$A" &
fg=$!
wait_for 10 grep -q " $A fuse.talosfs" /proc/mounts
wait_for 10 talosfs status "$A"
[ "$(cat "$A/two")" = 2 ]
umount "$A"
wait $fg
echo "SIGTERM ends it cleanly; -f stays in the foreground"
