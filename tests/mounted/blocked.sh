#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What a primary does without its in-sync backup: policy consistent blocks writes and serves reads,
# policy available goes on after the timeout; with the backup killed, and hung.
. "$(dirname "$0")/lib.sh"
MOUNT_OPTIONS=timeout=1s

check_blocked() {
	wait_for 10 is "$A" replication.writes_blocked true
	if timeout 1 sh -c "echo x >'$A/blocked'" 2>/dev/null; then fail "a write went through"; fi
	writers=()
	for i in $(seq 20); do # more than there are request threads
		(echo "$i" >"$A/waiting$i") &
		writers+=($!)
	done
	sleep 0.3
	# (In the very directory where a create waits, the kernel makes lookups wait as well.)
	[ "$(timeout 5 cat "$A/reads/file")" = data ] || fail "reads do not go on"
	timeout 5 ls "$A/reads" >/dev/null || fail "listing does not go on"
	talosfs status "$A" | grep -q 'member drop' || fail "status does not say what to do"
}
check_unblocked() {
	wait_for 10 is "$A" replication.writes_blocked false
	wait "${writers[@]}"
	[ "$(cat "$A/waiting20")" = 20 ]
}

# Whoever waits in the control socket holds up neither questions nor what ends the waiting. (Over RDMA
# nothing waits there: what was written is in the backup's memory, hung or not.)
syncs_wait() {
	for i in 1 2 3 4 5 6 7 8 9 10; do
		talosfs sync "$A" 2>"$dir/sync.$i" &
		syncs[i]=$!
	done
	refused() { [ "$(cat "$dir"/sync.* | grep -c 'try again')" = 4 ]; }
	wait_for 20 refused
	timeout 20 talosfs status "$A" >/dev/null || fail "status waits behind syncs"
	timeout 20 talosfs wait --primary "$A" || fail "wait waits behind syncs"
}
syncs_end() {
	local waited=0
	for i in 1 2 3 4 5 6 7 8 9 10; do wait "${syncs[i]}" && waited=$((waited + 1)); done
	[ $waited = 6 ] || fail "$waited of 6 syncs ended well"
}

start_pair
mkdir "$A/reads"
echo data >"$A/reads/file"
ls "$A/reads" >/dev/null
talosfs sync "$A"
kill9 "$(pid_of "$B")"
check_blocked
umount "$B"
mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b,$MOUNT_OPTIONS"
check_unblocked
wait_for 20 is "$B" replication.in_sync true
wait_for 10 caught_up
[ "$(cat "$B/waiting7")" = 7 ]
echo "consistent: a killed backup blocks writes, its return unblocks them"

backup=$(pid_of "$B")
kill -STOP "$backup"
echo late >"$A/late" # nobody has noticed so far; a sync waits for it
check_blocked
[ "${TALOS_TEST_TRANSPORT:-}" = rdma ] || syncs_wait
timeout 20 talosfs member drop "$A" "$addr_b" >/dev/null
check_unblocked
[ "${TALOS_TEST_TRANSPORT:-}" = rdma ] || syncs_end
echo "consistent: a hung backup blocks writes, dropping it unblocks them"
kill -CONT "$backup"
wait_for 20 is "$B" replication.in_sync true
wait_for 10 caught_up
echo "consistent: the dropped one catches up and counts again"
pids="$(pid_of "$A") $(pid_of "$B")"
umount "$B"
umount "$A"
for p in $pids; do wait_for 30 gone "$p"; done
rm "$image_a" "$image_b"

SIZE=256M start_pair --policy available
backup=$(pid_of "$B")
kill -STOP "$backup"
start=$SECONDS
timeout 30 python3 -c "
import os
f = os.open('$A/sync', os.O_WRONLY | os.O_CREAT)
os.write(f, b'x')
os.fsync(f)"
[ $((SECONDS - start)) -le 6 ] || fail "the writer waited for $((SECONDS - start)) s"
# Over RDMA the write itself needs nobody there: it is the silence that tells.
wait_for 10 is "$A" replication.peers.0.in_sync false
echo "available: a hung backup is dropped after the timeout, by itself"
kill -CONT "$backup"
wait_for 20 is "$B" replication.in_sync true
echo "available: it catches up and counts again"
kill9 "$(pid_of "$A")"
if talosfs promote "$B" 2>"$dir/err"; then fail "promoted without knowing"; fi
grep -q 'accept-data-loss' "$dir/err"
talosfs promote --accept-data-loss "$B" >/dev/null
echo x >"$B/y"
echo "available: promotion without the primary needs --accept-data-loss"
