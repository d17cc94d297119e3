#!/bin/bash
# SPDX-License-Identifier: MIT
# POSIX through a mount, with and without writeback caching; birth and access times.
. "$(dirname "$0")/lib.sh"

for mode in writeback nowriteback; do
	mkfs.talosfs --size 512M "$dir/$mode.tfs" >/dev/null
	mount.talosfs "$dir/$mode.tfs" "$A" -o "$mode"
	chmod 777 "$A"
	python3 "$here/posix.py" "$A"
	umount "$A"
done

mkfs.talosfs --size 512M "$image_a" >/dev/null
# read_moves OPTION: does reading a file that was read since it changed move its atime?
read_moves() {
	local before
	mount.talosfs "$image_a" "$A" -o "$1"
	echo text >"$A/f"
	touch -d '2 hours ago' "$A/f"
	touch -a -d '1 hour ago' "$A/f"
	umount "$A"
	mount.talosfs "$image_a" "$A" -o "$1"
	before=$(stat -c %X "$A/f")
	cat "$A/f" >/dev/null
	[ "$(stat -c %X "$A/f")" != "$before" ] && moved=yes || moved=no
	umount "$A"
}
read_moves strictatime
[ $moved = yes ] || fail "strictatime: reading left the access time"
read_moves noatime
[ $moved = no ] || fail "noatime: reading moved the access time"
read_moves relatime # touch changed ctime just now, so it is due
[ $moved = yes ] || fail "relatime: reading left an access time older than the last change"

mount.talosfs "$image_a" "$A" -o strictatime
cat "$A/f" >/dev/null
before=$(stat -c %x "$A/f")
cat "$A/f" >/dev/null
[ "$(stat -c %x "$A/f")" != "$before" ] || fail "strictatime: reading what the kernel had left the access time"
umount "$A"

mount.talosfs "$image_a" "$A" -o noacl
python3 - "$A/f" <<'EOF' || fail "noacl: an ACL was taken"
import errno, os, sys
try:
    os.setxattr(sys.argv[1], "system.posix_acl_access", b"\2\0\0\0")
    sys.exit(1)
except OSError as e:
    sys.exit(e.errno != errno.EOPNOTSUPP)
EOF
# What was never written takes no room, and who copies it sees that.
truncate -s 1T "$A/sparse"
echo text | dd of="$A/sparse" conv=notrunc bs=1M seek=500000 status=none
[ "$(du -k "$A/sparse" | cut -f1)" -le 4 ] || fail "5 bytes in 1 TiB take $(du -h "$A/sparse")"
timeout 60 cp "$A/sparse" "$A/copy" || fail "the copy of a sparse file reads its holes"
[ "$(du -k "$A/copy" | cut -f1)" -le 4 ] || fail "the copy takes $(du -h "$A/copy")"
[ "$(stat -c %s "$A/copy")" = "$(stat -c %s "$A/sparse")" ]

now=$(date +%s)
touch "$A/born"
born=$(stat -c %W "$A/born")
[ "$born" -ge "$now" ] && [ "$born" -le $((now + 5)) ] || fail "born at $born, made at $now"
