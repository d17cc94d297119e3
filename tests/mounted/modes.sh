#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Four backups of mixed modes on one primary, what each shows and keeps, with real kills; what each way to
# acknowledge survives, and what it waits for; promotion in place, timed.
. "$(dirname "$0")/lib.sh"
writer=$OUT/tests/mounted/fsync_writer
# Data of the promotion that is timed; memtables have their default size.
megabytes=${MEGABYTES:-48}

mount_primary() { # OPTIONS: the image is there
	mount.talosfs "$image_a" "$A" -o "listen=$addr_a$1"
}
backup_addr() { echo "$own_host:$((port + 10 + $1))"; }
mount_backup() { # N MODE [OPTIONS]
	mount.talosfs "$dir/b$1.tfs" "$dir/m$1" -o "primary=$addr_a,listen=$(backup_addr "$1"),mode=$2${3:-}"
}
make_backup() {
	mkdir -p "$dir/m$1"
	mkfs.talosfs --backup --force "$dir/b$1.tfs" >/dev/null
	mount_backup "$@"
	wait_for 20 is "$dir/m$1" replication.in_sync "${in_sync:-true}"
}
umount_wait() { # many daemons, on a busy machine
	local p
	p=$(pid_of "$1")
	umount "$1"
	wait_for 60 gone "$p"
}
peers_in_sync() {
	[ "$(talosfs status --json "$A" | python3 -c '
import json, sys
print(sum(p["in_sync"] for p in json.load(sys.stdin)["replication"]["peers"]))')" = "$1" ]
}
acked_some() { [ "$(wc -l <"$dir/acked")" -ge 50 ]; }
end_of() { talosfs sync --json "$A" | json position; }
fsync_beside_hung() { # FILE PID...: stops them, and prints how many ms a write and its fsync took then
	timeout 60 python3 -c "
import os, signal, sys, time
for pid in sys.argv[2:]:
    os.kill(int(pid), signal.SIGSTOP)
t = time.monotonic()
f = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(f, b'x')
os.fsync(f)
print(round((time.monotonic() - t) * 1000))
for pid in sys.argv[2:]:
    os.kill(int(pid), signal.SIGCONT)" "$@"
}
end_all() {
	local d
	for d in "$dir"/m[0-9] "$A"; do
		if grep -qs " $d fuse.talosfs" /proc/mounts; then umount_wait "$d"; fi
	done
	rm -f "$image_a" "$dir"/b[0-9].tfs
}

# --- modes -----------------------------------------------------------------------------
modes=(fresh lean build-index lean)
mkfs.talosfs --size 512M --l0-size 512K --policy available "$image_a" >/dev/null
mount_primary ,ack=device
mkdir "$A/w"
for i in 0 1 2 3; do make_backup $i "${modes[$i]}"; done
wait_for 10 peers_in_sync 4
for i in 0 1 2 3; do same "$(status_of "$A" replication.peers.$i.mode)" "${modes[$i]}"; done
same "$(status_of "$A" replication.ack)" device
for i in $(seq 400); do echo "content $i" >"$A/w/file$i"; done
head -c 6000000 /dev/urandom >"$A/w/large"
position=$(end_of)
for i in 0 2; do talosfs wait --position "$position" --timeout 30s "$dir/m$i"; done
talosfs debug flush "$A"
for i in 1 3; do talosfs wait --position "$position" --timeout 30s "$dir/m$i"; done
for i in 0 1 2 3; do diff -r "$A/w" "$dir/m$i/w"; done
# The kernel keeps nothing of a lean view that has moved on.
echo changed >"$A/w/file7"
rm "$A/w/file8"
echo new >"$A/w/file900"
same "$(cat "$dir/m1/w/file7")" "content 7"
position=$(end_of)
talosfs debug flush "$A"
talosfs wait --position "$position" --timeout 30s "$dir/m1"
wait_for 5 diff -r "$A/w" "$dir/m1/w"
[ "$(status_of "$dir/m1" write_path.memtable_bytes)" = 0 ] || fail "a lean backup has memtables"
talosfs debug flush "$dir/m2"
[ "$(status_of "$dir/m2" engine.flushes)" -gt 0 ] || fail "a backup did not build its index"
[ "$(status_of "$dir/m1" engine.flushes)" = 0 ] || fail "a lean backup flushed"
tool_refuses 'builds its own index' talosfs promote --accept-data-loss "$dir/m2"
echo "four backups, three modes: the same content"

for i in 0 1 2 3; do
	"$writer" "$A/w" $((i * 1000000 + 1)) >"$dir/acked" &
	w=$!
	wait_for 20 acked_some
	kill9 "$(pid_of "$dir/m$i")"
	umount "$dir/m$i"
	mount_backup $i "${modes[$i]}"
	wait_for 30 is "$dir/m$i" replication.in_sync true
	kill $w
	wait $w 2>/dev/null || true
done
wait_for 20 peers_in_sync 4
position=$(end_of)
talosfs debug flush "$A"
for i in 0 1 2 3; do
	talosfs wait --position "$position" --timeout 30s "$dir/m$i"
	diff -r "$A/w" "$dir/m$i/w"
done
echo "each was killed while data came, and is back"

# Modes by remounting: lean and fresh as one likes, an own index from what is there.
for change in "1 fresh" "0 lean" "3 build-index"; do
	read -r i mode <<<"$change"
	umount_wait "$dir/m$i"
	mount_backup "$i" "$mode"
	wait_for 30 is "$dir/m$i" replication.in_sync true
	same "$(status_of "$dir/m$i" mode)" "$mode"
	diff -r "$A/w" "$dir/m$i/w"
done
umount_wait "$dir/m2"
if mount.talosfs "$dir/b2.tfs" "$dir/m2" -o mode=fresh 2>"$dir/err"; then fail "an own index is shown as another"; fi
grep -q 'needs a new copy' "$dir/err"
mount.talosfs "$dir/b2.tfs" "$dir/m2" # as it was
diff -r "$A/w" "$dir/m2/w"
umount_wait "$dir/m2"
fsck.talosfs -n "$dir/b2.tfs" >"$dir/out" || fail "fsck: $(cat "$dir/out")"
mount_backup 2 fresh
wait_for 30 is "$dir/m2" replication.in_sync true
diff -r "$A/w" "$dir/m2/w"
umount_wait "$dir/m0"
fsck.talosfs -n "$dir/b0.tfs" >"$dir/out" || fail "fsck: $(cat "$dir/out")"
echo "modes change from mount to mount"

# Everybody at once: nobody waits for another that is gone, too.
ms=$(fsync_beside_hung "$A/hung" "$(pid_of "$dir/m1")" "$(pid_of "$dir/m2")" "$(pid_of "$dir/m3")")
echo "an fsync while three backups hung took $ms ms"
[ "$ms" -lt 8000 ] || fail "too long"
for i in 1 2 3; do wait_for 30 is "$dir/m$i" replication.in_sync true; done
end_all

# --- ack=device: both lose their memory ---------------------------------------------------
mkfs.talosfs --size 256M "$image_a" >/dev/null
mount_primary ,ack=device
mkdir "$A/w"
make_backup 0 lean
"$writer" "$A/w" 1 >"$dir/acked" &
w=$!
wait_for 20 acked_some
pids=("$(pid_of "$A")" "$(pid_of "$dir/m0")")
kill -9 "${pids[@]}"
for p in "${pids[@]}"; do wait_for 30 gone "$p"; done
wait $w || true
last=$(tail -n 1 "$dir/acked")
umount "$A"
umount "$dir/m0"
rm "$image_a"
mount.talosfs "$dir/b0.tfs" "$dir/m0" -o "listen=$(backup_addr 0)"
talosfs promote --accept-data-loss "$dir/m0" >/dev/null
"$writer" "$dir/m0/w" check "$last"
[ "$last" -gt 0 ]
echo "ack=device: $last records acknowledged, all of them on the backup's device"
end_all

# --- ack=local: nobody is waited for ---------------------------------------------------------
mkfs.talosfs --size 256M "$image_a" >/dev/null
mount_primary ,ack=local
in_sync=false make_backup 0 fresh
echo data >"$A/file"
wait_for 20 test -e "$dir/m0/file"
ms=$(fsync_beside_hung "$A/alone" "$(pid_of "$dir/m0")")
echo "ack=local: an fsync while the backup hung took $ms ms"
[ "$ms" -lt 1500 ] || fail "it waited"
wait_for 20 test -e "$dir/m0/alone"
end_all

# --- promotion in place -----------------------------------------------------------------------
mkfs.talosfs --size 4G "$image_a" >/dev/null
mount_primary ""
make_backup 0 lean
make_backup 1 fresh
mkdir "$A/d"
python3 - "$A/d" "$megabytes" <<'P'
import os, sys
big = os.urandom(1 << 20)
for i in range(int(sys.argv[2])):
    with open(f"{sys.argv[1]}/big{i}", "wb") as f:
        f.write(big)
    for k in range(40):
        with open(f"{sys.argv[1]}/small{i}.{k}", "wb") as f:
            f.write(big[:k * 37])
P
(cd "$A/d" && sha256sum ./*) >"$dir/sums"
talosfs sync "$A"
for i in 0 1; do
	[ $i = 0 ] || mount_backup 1 fresh ",primary=$(backup_addr 0)"
	[ $i = 0 ] || wait_for 30 is "$dir/m1" replication.in_sync true
	d=$dir/m$i
	mode=$(status_of "$d" mode)
	exec 5<"$d/." # what is open stays so
	if [ $i = 0 ]; then kill9 "$(pid_of "$A")"; else kill9 "$(pid_of "$dir/m0")"; fi
	from=$(date +%s%N)
	talosfs promote "$d" >/dev/null
	echo x >"$d/after$i"
	ms=$((($(date +%s%N) - from) / 1000000))
	exec 5<&-
	echo "promotion of a $mode backup in place: $ms ms, with $megabytes MB"
	[ "$ms" -lt 6000 ] || fail "too long"
	(cd "$d/d" && sha256sum --quiet -c "$dir/sums")
	[ $i = 0 ] && umount_wait "$dir/m1"
done
umount "$A"
umount "$dir/m0"
