#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Batches of pairs over crashes of the daemon, and at a backup.
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-10}

# The daemon is killed among many batches: each is there as a whole, or not at all.
mkfs.talosfs --size 1G "$image_a" >/dev/null
writer() {
	local n value
	for ((n = $1; ; n++)); do
		value=$(printf '%0200d' "$n" | base64 -w0)
		printf "put k%d $value\n" {1..40} >"$dir/batch"
		talosfs put --batch --sync "$A" "$dir/batch" 2>/dev/null || return 0
		echo "$n" >"$dir/acked"
	done
}
echo 0 >"$dir/acked"
for ((i = 1; i <= rounds; i++)); do
	mount.talosfs "$image_a" "$A"
	writer $(($(cat "$dir/acked") + 2)) &
	w=$!
	sleep "0.$((RANDOM % 400 + 200))"
	kill9 "$(pid_of "$A")"
	wait $w
	umount "$A"
	talosfs scan --values "$image_a" >"$dir/values"
	same "$(cut -f2 "$dir/values" | sort -u | wc -l)" 1
	same "$(wc -l <"$dir/values")" 40
	found=$(head -n 1 "$dir/values" | cut -f2 | sed 's/^0*//')
	[ "$found" -ge "$(cat "$dir/acked")" ] || fail "batch $(cat "$dir/acked") was durable, $found is there"
done
echo "ok: $rounds kills among $found batches"

# A backup's mount shows a batch as soon as it has its position; it takes none.
rm -f "$image_a"
start_pair
echo -n old | talosfs put "$A" f
talosfs wait --position "$(talosfs sync --json "$A" | json position)" --timeout 20s "$B"
same "$(cat "$B/f")" old
exec 8<"$B/f"
for ((i = 1; i <= 20; i++)); do
	position=$(printf 'put f %s\nput n%d %s\n' "$(echo -n "new$i" | base64)" $i "$(echo -n n | base64)" |
		talosfs put --batch --json "$A" | json position)
	talosfs wait --position "$position" --timeout 20s "$B"
	same "$(cat "$B/f")" "new$i"
	same "$(cat "$B/n$i")" n
	same "$(talosfs get "$B" f)" "new$i"
done
exec 8<&-
# Programs ask the root where they are, without a tool and without root's rights.
attribute() { # MOUNT NAME
	python3 -c '
import os, sys
os.setuid(65534)
print(os.getxattr(sys.argv[1], "user.talosfs." + sys.argv[2]).decode())' "$1" "$2"
}
chmod 755 "$dir"
same "$(attribute "$A" role) $(attribute "$B" role)" "primary backup"
echo text >"$A/text"
position=$(attribute "$A" position)
behind() { [ "$(attribute "$B" position)" -ge "$position" ]; }
wait_for 20 behind
same "$(cat "$B/text")" text
talosfs wait --position "$position" --timeout 20s "$B"
same "$(talosfs scan --values "$B" text)" "$(printf 'text\ttext\\012')"
same "$(talosfs scan "$B" | wc -l)" 22
# Reading moves access times at the primary: the first time, and not again.
talosfs export "$A" - >/dev/null
talosfs wait --position "$(talosfs sync --json "$A" | json position)" --timeout 20s "$B"
talosfs export "$B" - | cmp - <(talosfs export "$A" -)
python3 -c '
import os, sys
assert os.listxattr(sys.argv[1]) == []' "$A"
tool_refuses 'backup, which is read-only: write at the primary' talosfs put "$B" f
tool_refuses 'backup, which is read-only' talosfs import "$B" /dev/null
tool_refuses 'waited too long' talosfs wait --primary --timeout 100ms "$B"
talosfs wait --primary "$A"
pid_b=$(pid_of "$B")
umount "$B"
wait_for 20 gone "$pid_b"
umount_wait "$A"
# Offline a volume whose backup is in sync is read; it is not changed behind its back.
same "$(talosfs get "$image_a" f)" new20
same "$(talosfs get "$image_b" f)" new20
tool_refuses 'member drop' talosfs put --timeout 300ms "$image_a" f
echo "ok: a backup shows batches at their position, and is not left behind"
