#!/bin/bash
# SPDX-License-Identifier: MIT
# A backup's kernel caches names, attributes and pages, and never shows a stale one for longer than
# the backup's view trails.
. "$(dirname "$0")/lib.sh"

start_pair
requests() { status_of "$B" fs.requests; }

# What does not change is asked for once.
mkdir "$A/still" && echo bytes >"$A/still/file"
wait_for 5 caught_up
cat "$B/still/file" >/dev/null
stat "$B/still/missing" >/dev/null 2>&1 || true
sleep 0.1
before=$(requests)
for ((i = 0; i < 50; i++)); do
	stat "$B/still/file" >/dev/null
	stat "$B/still/missing" >/dev/null 2>&1 || true
done
asked=$(($(requests) - before))
[ "$asked" -le 5 ] || fail "100 times stat() at a backup: $asked requests"
echo "100 times stat() at a backup: $asked requests"

# What changes is seen.
SEED=$seed backup_cache "$A" "$B" "${COUNT:-1500}"

# So is who may read it: the kernel keeps ACLs, too.
# readable_by_other: at the backup, by one who is neither its owner nor in its group?
readable_by_other() {
	python3 -c '
import os, sys
os.setgroups([])
os.setresgid(12345, 12345, 12345)
os.setresuid(12345, 12345, 12345)
open(sys.argv[1]).read()' "$B/still/acl" 2>/dev/null
}
give() { # rights of a named user
	python3 -c '
import os, struct, sys
e = lambda tag, perm, who: struct.pack("<HHI", tag, perm, who & 0xffffffff)
os.setxattr(sys.argv[1], "system.posix_acl_access", struct.pack("<I", 2) + e(1, 6, -1) +
            e(2, int(sys.argv[2]), 12345) + e(4, 0, -1) + e(16, 4, -1) + e(32, 0, -1))' "$A/still/acl" "$1"
}
not_readable_by_other() { ! readable_by_other; }
chmod 711 "$dir" "$A"
echo secret >"$A/still/acl"
give 0
wait_for 5 caught_up
wait_for 2 not_readable_by_other
for ((i = 0; i < 5; i++)); do
	give 4
	wait_for 3 readable_by_other || fail "a right that was given is not seen at the backup"
	give 0
	wait_for 3 not_readable_by_other || fail "a right that was taken is still there at the backup"
done

# In a directory that is renamed one can stay.
cd "$B/still"
mv "$A/still" "$A/moved"
wait_for 5 caught_up
wait_for 2 test -e "$B/moved/file"
[ ! -e "$B/still" ] || fail "a renamed directory has its old name"
[ "$(cat file)" = bytes ] || fail "a renamed directory lost those who are in it"
cd /

# After a promotion in place it goes on with what was cached.
before=$(cat "$B/moved/file")
kill9 "$(pid_of "$A")"
talosfs promote "$B"
[ "$(cat "$B/moved/file")" = "$before" ]
echo more >>"$B/moved/file"
[ "$(tail -n 1 "$B/moved/file")" = more ]
