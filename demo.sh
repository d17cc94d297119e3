#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Two nodes on one machine: make a volume, mount it, follow it, copy real files in, kill the
# primary, promote the backup, go on, take the old primary back. Everything is in a temporary folder that is removed again.
set -euo pipefail
cd "$(dirname "$0")"
OUT=${OUT:-$PWD/build}
export PATH=$OUT:$PATH
[ "$(id -u)" = 0 ] || { echo "demo: mounting needs root: run it with sudo" >&2; exit 1; }
dir=$(mktemp -d /tmp/talosfs-demo.XXXXXX)
mkdir "$dir/a" "$dir/b"
cleanup() {
	umount "$dir/a" 2>/dev/null || umount -l "$dir/a" 2>/dev/null || true
	umount "$dir/b" 2>/dev/null || umount -l "$dir/b" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
run() {
	printf '\n$ %s\n' "${*//$dir/DIR}"
	"$@"
}
pid_of() { talosfs status --json "$1" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'; }
caught_up() { [ "$(talosfs status "$dir/$1" | sed -n 's/.*end \([0-9]*\),.*/\1/p')" = \
	"$(talosfs status "$dir/b" | sed -n 's/.*visible \([0-9]*\),.*/\1/p')" ]; }

run mkfs.talosfs --size 2G "$dir/a.tfs"
run mount.talosfs "$dir/a.tfs" "$dir/a" -o listen=127.0.0.1:7480
run mkfs.talosfs --backup "$dir/b.tfs"
run mount.talosfs "$dir/b.tfs" "$dir/b" -o primary=127.0.0.1:7480,listen=127.0.0.1:7481
until talosfs status "$dir/b" | grep -q ', in-sync'; do sleep 0.05; done
run cp -a /usr/include "$dir/a/"
until caught_up a; do sleep 0.05; done
run talosfs status "$dir/a"
run diff -r --no-dereference /usr/include "$dir/b/include"
echo "(no difference)"
run kill -9 "$(pid_of "$dir/a")"
run talosfs promote "$dir/b"
run sh -c "echo 'written after the failover' > $dir/b/news; cat $dir/b/news"
run umount "$dir/b"
run mount.talosfs "$dir/b.tfs" "$dir/b" -o listen=127.0.0.1:7481
run diff -r --no-dereference /usr/include "$dir/b/include"
echo "(no difference)"
umount "$dir/a" 2>/dev/null || true # what the killed daemon left
run mount.talosfs "$dir/a.tfs" "$dir/a" -o primary=127.0.0.1:7481,listen=127.0.0.1:7480
until talosfs status "$dir/a" | grep -q ', in-sync'; do sleep 0.05; done
until [ -e "$dir/a/news" ]; do sleep 0.05; done
run cat "$dir/a/news"
run talosfs status "$dir/b"
printf '\nThe volume outlived its first primary, which came back as a backup with what it had.\n'
