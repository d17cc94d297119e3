#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# mount(8), fstab, fuse.talosfs, umount and mount at once, SIGTERM, the foreground.

# mount(8) looks for its helpers in /sbin only: ours go there in a mount namespace of this test.
if [ -z "${IN_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ]; then
	IN_NAMESPACE=1 exec unshare --mount --propagation slave "$0"
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

# flags_are FLAG...: each of them is shown for the mount, the first of all as the first.
flags_are() {
	local f shown
	shown=,$(awk -v m="$A" '$2 == m { print $4 }' /proc/mounts),
	[ "${shown%%,"$1",*}" = "" ] || fail "the mount is '$shown', not $1"
	for f; do case $shown in *,$f,*) ;; *) fail "the mount is '$shown', without $f" ;; esac; done
}
atime() { stat -c %x "$A/one"; }
flags_are rw relatime # mount.fuse asks for suid and dev
umount "$A"
mount -t talosfs "$image_a" "$A"
flags_are rw nosuid nodev relatime
mount -o remount,ro "$A"
flags_are ro nosuid nodev relatime
if touch "$A/one" 2>/dev/null; then fail "remounted read-only, but written to"; fi
mount -o remount,rw,suid,dev,strictatime "$A"
flags_are rw
before=$(atime)
cat "$A/one" >/dev/null
[ "$(atime)" != "$before" ] || fail "remounted with strictatime: reading left the access time"
mount -t talosfs -o remount,noatime,nodev "$image_a" "$A"
flags_are rw nodev noatime
before=$(atime)
cat "$A/one" >/dev/null
[ "$(atime)" = "$before" ] || fail "remounted with noatime: reading moved the access time"
exec 5>>"$A/one"
if mount -o remount,ro "$A" 2>/dev/null; then fail "read-only beside an open file that can be written"; fi
exec 5>&-
if mount.talosfs "$image_a" "$B" -o remount,ro 2>"$dir/err"; then fail "remounted what is not mounted"; fi
grep -q 'no talosfs is mounted' "$dir/err" || fail "said '$(cat "$dir/err")'"
echo "remount works"
umount "$A"
mount -t talosfs "$image_a" "$A" -o defaults,rw,allow_dev,lazytime,noatime,nodiratime
flags_are rw nosuid noatime nodiratime
mknod "$A/null" c 1 3
echo >"$A/null"
[ "$(findmnt -n -o SOURCE,FSTYPE "$A" | tr -s ' ')" = "$image_a fuse.talosfs" ] || fail "findmnt: $(findmnt "$A")"
umount "$A"
mount -t talosfs "$image_a" "$A" -o "$(awk '{ print $4 }' <<<"- - - ro,nosuid,nodev,relatime,user_id=0,group_id=0,default_permissions,allow_other")"
flags_are ro relatime
umount "$A"
mount -t talosfs "$image_a" "$A" -o "listen=$addr_a,writeback"
echo "options of mount(8) and of /proc/mounts work"

pid=$(pid_of "$A")
echo 2 >"$A/two"
# Of a file that is still open, what was written is there, too.
is "$A" fs.writeback true
head -c 5000000 /dev/urandom >"$dir/written"
python3 -c '
import os, signal, sys, time
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(f, open(sys.argv[2], "rb").read())
os.kill(int(sys.argv[3]), signal.SIGTERM)
end = time.time() + 60
while os.path.exists("/proc/" + sys.argv[3]) and time.time() < end: # a close would pass it on
    time.sleep(0.05)' "$A/open" "$dir/written" "$pid"
wait_for 30 gone "$pid"
if grep -q " $A " /proc/mounts; then fail "still mounted after SIGTERM"; fi
mount.talosfs -f "$image_a" "$A" &
fg=$!
wait_for 10 grep -q " $A fuse.talosfs" /proc/mounts
wait_for 10 talosfs status "$A"
[ "$(cat "$A/two")" = 2 ]
cmp "$A/open" "$dir/written"
umount "$A"
wait $fg
echo "SIGTERM ends it cleanly; -f stays in the foreground"

# A daemon that ends when its device number has become another mount's leaves that one's socket alone.
mkfs.talosfs --size 256M "$image_b" >/dev/null
same_number=
for _ in 1 2 3 4 5 6 7 8 9 10; do # other mounts on this machine may be faster
	mount.talosfs "$image_a" "$A"
	pid=$(pid_of "$A")
	number=$(mountpoint -d "$A")
	kill -STOP "$pid"
	command umount -l "$A"
	mount.talosfs "$image_b" "$B"
	[ "$(mountpoint -d "$B")" != "$number" ] || same_number=1
	kill -CONT "$pid"
	wait_for 30 gone "$pid"
	talosfs status "$B" >/dev/null || fail "a daemon took another one's socket with it"
	umount_wait "$B"
	[ -z "$same_number" ] || break
done
[ -n "$same_number" ] || fail "no device number was used again"
echo "a control socket belongs to one daemon"
