#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# 100,000 messages that no node would send, to the ports of a pair that is being written to: both
# daemons live, keep their memory, stay in sync, and the mounts work. With a secret, then without.
. "$(dirname "$0")/lib.sh"
messages=${MESSAGES:-100000}
RSS_GROWTH_KIB=81920 # log buffers and memtables fill as they are used

rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"; }
sockets() { find "/proc/$1/fd" -mindepth 1 -lname 'socket:*' | wc -l; }
# No connection of a stranger is left. The pair's own may be few at first: data sockets join later.
PAIR_SOCKETS=3
settled() {
	[ "$(sockets "$pid_a")" -le $((sockets_a + PAIR_SOCKETS)) ] &&
		[ "$(sockets "$pid_b")" -le $((sockets_b + PAIR_SOCKETS)) ]
}

# abuse MESSAGES SECRET|-: of the pair that is mounted
abuse() {
	local w began=$SECONDS before_a before_b acked
	mkdir -p "$A/w"
	pid_a=$(pid_of "$A") pid_b=$(pid_of "$B")
	# Memory that comes with use is there before it is measured.
	abuse_peer "$seed" 2000 "$2" "$host_a" "$port" $((port + 1)) >/dev/null
	head -c 30000000 /dev/urandom >"$A/filler" && sync "$A/filler"
	sockets_a=$(sockets "$pid_a") sockets_b=$(sockets "$pid_b")
	before_a=$(rss "$pid_a") before_b=$(rss "$pid_b")
	fsync_writer "$A/w" 1 >"$dir/acked" &
	w=$!
	abuse_peer $((seed + 1)) "$1" "$2" "$host_a" "$port" $((port + 1))
	kill $w
	wait $w 2>/dev/null || true
	acked=$(tail -n 1 "$dir/acked")
	[ "${acked:-0}" -gt 50 ] || fail "only $acked records were written meanwhile"
	[ "$(pid_of "$A") $(pid_of "$B")" = "$pid_a $pid_b" ] || fail "a daemon is another one"
	is "$A" role primary && is "$A" epoch 1 || fail "the primary is none: $(talosfs status "$A")"
	wait_for 10 is "$B" replication.in_sync true
	sync "$A/w"
	wait_for 20 caught_up
	fsync_writer "$A/w" check "$acked"
	fsync_writer "$B/w" check "$acked"
	cmp "$A/filler" "$B/filler"
	wait_for 15 settled
	echo "ok: $acked records meanwhile, $((SECONDS - began)) s;" \
		"resident KiB of A $before_a -> $(rss "$pid_a"), of B $before_b -> $(rss "$pid_b")"
	[ $(($(rss "$pid_a") - before_a)) -lt $RSS_GROWTH_KIB ] || fail "the primary has grown"
	[ $(($(rss "$pid_b") - before_b)) -lt $RSS_GROWTH_KIB ] || fail "the backup has grown"
	rm -r "$A/w"
}

(umask 077 && head -c 32 /dev/urandom | base64 >"$dir/secret")
MOUNT_OPTIONS="secret=$dir/secret,cache=4M" # reading back what was written fills the cache, too
start_pair
abuse "$messages" "$dir/secret"

# A backup that comes back gets through to its primary, whoever else is at the door.
abuse_peer $((seed + 2)) 100000000 "$dir/secret" "$host_a" "$port" >/dev/null &
evil=$!
umount "$B"
wait_for 30 gone "$pid_b"
mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b,secret=$dir/secret,cache=4M" 2>/dev/null
wait_for 20 is "$B" replication.in_sync true
echo "ok: a backup came back meanwhile"
kill $evil
pid_b=$(pid_of "$B")
umount "$B" && umount "$A"
wait_for 30 gone "$pid_a"
wait_for 30 gone "$pid_b"

# The same volume without the secret.
mount.talosfs "$image_a" "$A" -o "listen=$addr_a,cache=4M" 2>/dev/null
mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b,cache=4M"
wait_for 20 is "$B" replication.in_sync true
abuse $((messages / 5)) -
