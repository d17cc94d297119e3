#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# transport=auto takes RDMA where both sides have it, else TCP, and status says which.
. "$(dirname "$0")/../mounted/lib.sh"

# linked OPTIONS-OF-A OPTIONS-OF-B TRANSPORT: what a pair mounted so comes to use
linked() {
	local a b
	rm -f "$image_a" "$image_b"
	mkfs.talosfs --size 256M "$image_a" >/dev/null
	command mount.talosfs "$image_a" "$A" -o "listen=$addr_a,insecure$1"
	mkfs.talosfs --backup "$image_b" >/dev/null
	command mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b,insecure$2"
	wait_for 20 is "$B" replication.in_sync true
	wait_for 5 is "$B" replication.link.transport "$3"
	wait_for 5 is "$A" replication.peers.0.link.transport "$3"
	if [ "$3" = rdma ]; then
		[ -n "$(status_of "$B" replication.link.device)" ]
		[ "$(status_of "$B" replication.link.path_mtu)" -ge 256 ]
		talosfs status "$B" | grep -q 'rdma over'
	fi
	echo hello >"$A/file"
	talosfs sync "$A"
	wait_for 10 caught_up
	[ "$(cat "$B/file")" = hello ]
	a=$(pid_of "$A") b=$(pid_of "$B")
	umount "$B" && umount "$A"
	wait_for 10 gone "$a" && wait_for 10 gone "$b"
	echo "'$1' and '$2': $3"
}
linked "" "" rdma
linked "" ,transport=tcp tcp
linked ,transport=tcp "" tcp
linked ,transport=rdma "" rdma
