# SPDX-License-Identifier: MIT
# This project: a primary and one backup over TCP, both here. Sourced by run.sh, inside its namespaces.
talosfs_missing() { :; }
talosfs_up() { # DIR: the mount is DIR/mnt
	local base=$1
	mkdir -p "$base"/{mnt,backup}
	mkfs.talosfs --policy available --size 32G "$base/a.tfs"
	mkfs.talosfs --backup "$base/b.tfs"
	mount.talosfs "$base/a.tfs" "$base/mnt" -o listen=127.0.0.1:7480
	mount.talosfs "$base/b.tfs" "$base/backup" -o primary=127.0.0.1:7480,listen=127.0.0.1:7481
	talosfs_base=$base
	until talosfs_ready; do sleep 0.1; done
}
talosfs_status() { talosfs status --json "$1" | python3 -c "import json, sys; print(json.load(sys.stdin)$2)"; } # MOUNT EXPRESSION
talosfs_servers() { talosfs_status "$talosfs_base/mnt" "['pid']" && talosfs_status "$talosfs_base/backup" "['pid']"; }
talosfs_replica() { talosfs_status "$1/backup" "['pid']"; } # DIR
talosfs_ready() { [ "$(talosfs_status "$talosfs_base/mnt" "['replication']['peers'][0]['in_sync']")" = True ]; }
