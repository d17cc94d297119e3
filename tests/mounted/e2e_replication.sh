#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A replicated volume from its making to the loss of its primary, with a real tree of files.
. "$(dirname "$0")/lib.sh"

# More than 5,000 files and 100 MB: what the system has, and more of it if that is too little. SMALL=1:
# a fraction of that, for a guest in which every system call is slow.
tree=$dir/tree
mkdir "$tree"
if [ -n "${SMALL:-}" ]; then
	min_files=500 min_megabytes=20
	cp -a /usr/include/linux "$tree/include"
else
	min_files=5000 min_megabytes=100
	cp -a /usr/include "$tree/include"
fi
for ((n = 1; n < 20; n++)); do
	[ "$(find "$tree" -type f | wc -l)" -le $min_files ] ||
		[ "$(du -sm "$tree" | cut -f1)" -le $((min_megabytes + 5)) ] || break
	mkdir "$tree/more$n"
	for d in /usr/lib/gcc /usr/share/doc /usr/share/man /usr/share/perl; do
		[ -n "${SMALL:-}" ] || [ ! -d $d ] || cp -a $d "$tree/more$n/$(basename $d)"
	done
	head -c 20000000 /dev/urandom >"$tree/more$n/big"
done
files=$(find "$tree" -type f | wc -l) megabytes=$(du -sm "$tree" | cut -f1)
echo "tree: $files files, $megabytes MB"
[ "$files" -gt $min_files ] && [ "$megabytes" -gt $min_megabytes ]
sums() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
sums "$tree" >"$dir/sums"

SIZE=3G start_pair
is "$A" role primary && is "$B" role backup
if touch "$B/x" 2>"$dir/err"; then fail "a backup took a write"; fi
grep -q 'Read-only file system' "$dir/err"

cp -a "$tree" "$A/tree" &
copy=$!
# Whatever the backup shows meanwhile is a state that the primary was in: the content of each
# file is a beginning of the source's.
seen=0
while kill -0 $copy 2>/dev/null; do
	while IFS= read -r f; do
		head -c 100000000 "$f" >"$dir/part" 2>/dev/null || continue
		n=$(stat -c %s "$dir/part")
		cmp -s -n "$n" "$dir/part" "$tree${f#"$B/tree"}" || fail "garbage in $f ($n bytes)"
		seen=$((seen + 1))
	done < <(find "$B/tree" -type f 2>/dev/null | shuf -n 100)
	sleep 0.1
done
wait $copy
echo "checked $seen files at the backup while the copy ran"

talosfs sync "$A"
wait_for 20 caught_up
sums "$A/tree" | cmp - "$dir/sums"
sums "$B/tree" | cmp - "$dir/sums"
diff -r --no-dereference "$tree" "$B/tree"
echo "primary and backup hold the tree"

kill9 "$(pid_of "$A")"
talosfs promote "$B"
is "$B" role primary && is "$B" epoch 2
echo on >"$B/after"
sums "$B/tree" | cmp - "$dir/sums"
umount_wait "$B"
mount.talosfs "$image_b" "$B" -o "listen=$addr_b"
sums "$B/tree" | cmp - "$dir/sums"
[ "$(cat "$B/after")" = on ]
rm -rf "$B/tree"
[ "$(ls "$B")" = after ]
echo "promoted, remounted, emptied"

# The old primary comes back: it learns of the new epoch and does not serve.
umount "$A"
if mount.talosfs "$image_a" "$A" -o "listen=$addr_a" 2>"$dir/err"; then
	fail "a deposed primary was mounted"
fi
grep -q 'primary=HOST:PORT of that one' "$dir/err"
# Nor is it changed for one that does not lead.
if mount.talosfs "$image_a" "$A" -o "primary=$own_host:$((port + 3)),timeout=1s" 2>"$dir/err"; then
	fail "a deposed primary follows nobody"
fi
grep -q 'cannot be asked' "$dir/err"
# Of the one that was promoted it becomes a backup, with what it has.
mount.talosfs "$image_a" "$A" -o "primary=$addr_b,listen=$addr_a"
wait_for 20 is "$A" replication.in_sync true
wait_for 20 caught_up "$B" "$A"
[ "$(cat "$A/after")" = on ]
[ "$(status_of "$A" replication.copy_total_bytes)" = 0 ] || fail "the old primary was copied anew"
# One that leads is not made a backup of its own backup.
umount_wait "$B"
if mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b" 2>"$dir/err"; then
	fail "a primary follows its own backup"
fi
grep -q 'leave out primary=' "$dir/err"
echo "the old primary is a backup now"
