#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A busy primary, while its RDMA devices are taken away and made again: writes wait or go on, the
# backup is followed again over RDMA, and nothing that was acknowledged is missing.
. "$(dirname "$0")/../mounted/lib.sh"
[ -n "${TALOS_TEST_RXE:-}" ] || skip "needs soft-RoCE devices that may be deleted"
seconds=${SECONDS_LONG:-40}
writer=$OUT/tests/mounted/fsync_writer
MOUNT_OPTIONS=timeout=2s

SIZE=3G start_pair
mkdir "$A/w"
"$writer" "$A/w" 1 >"$dir/acked" &
w=$!
# The log's space does not come back so far: not more than it holds in the longest run.
while dd if=/dev/urandom of="$A/noise" bs=64k count=20 2>/dev/null; do sleep 0.4; done &
noise=$!
end=$((SECONDS + seconds)) losses=0 slowest=0
while [ $SECONDS -lt $end ]; do
	sleep "$((RANDOM % 3 + 1)).$((RANDOM % 10))"
	before=$(tail -n 1 "$dir/acked")
	# shellcheck disable=SC2086
	set -- $TALOS_TEST_RXE
	[ $((RANDOM % 2)) = 0 ] || shift
	device=${1%:*} net=${1#*:}
	rdma link delete "$device"
	sleep "$((RANDOM % 3)).$((RANDOM % 10))"
	rdma link add "$device" type rxe netdev "$net"
	back=$(date +%s%N)
	wait_for 30 is "$B" replication.connected true
	wait_for 30 is "$A" replication.writes_blocked false
	wait_for 30 test "$(tail -n 1 "$dir/acked")" -ge "${before:-0}"
	[ "$(status_of "$B" replication.link.transport)" = rdma ]
	took=$((($(date +%s%N) - back) / 1000000))
	[ $took -le $slowest ] || slowest=$took
	losses=$((losses + 1))
	echo "loss $losses: $device, followed again after $took ms; ${before:-0} records so far"
done
kill $w || fail "the writer ended before its time: $(df -h "$A" | tail -n 1)"
kill $noise || fail "the other writer ended before its time"
wait $w $noise 2>/dev/null || true
last=$(tail -n 1 "$dir/acked")
talosfs sync "$A"
wait_for 20 caught_up
is "$B" replication.in_sync true
"$writer" "$A/w" check "$last"
"$writer" "$B/w" check "$last"
kill9 "$(pid_of "$A")"
talosfs promote "$B" >/dev/null
"$writer" "$B/w" check "$last"
umount -l "$A"
echo "$losses losses of a device in $seconds s, followed again after $slowest ms at most; $last records acknowledged, all there"
