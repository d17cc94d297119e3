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
