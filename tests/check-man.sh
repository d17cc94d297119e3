#!/bin/sh
# SPDX-License-Identifier: MIT
# Each option that a tool's --help names is in its man page, and the other way round.
cd "$(dirname "$0")/.." || exit 1
out=${1:-build}
bad=0
for tool in mkfs.talosfs mount.talosfs fsck.talosfs dump.talosfs talosfs; do
	page=$(mandoc -Tutf8 "man/$tool.8" | sed 's/.\x08//g')
	for o in $("$out/$tool" --help | grep -oE '(^|[ [])--[a-z0-9-]+|^ +[a-z0-9]+=[A-Z]|  +-[a-zA-Z] ' | tr -d ' [' | sed 's/=.*/=/' | sort -u); do
		echo "$page" | grep -qF -e "$o" || { echo "$tool.8 lacks $o" >&2; bad=1; }
	done
	for o in $(echo "$page" | grep -oE '^ +--[a-z0-9-]+|^ +-[a-zA-Z], --[a-z0-9-]+' | grep -oE '\-\-[a-z0-9-]+' | sort -u); do
		"$out/$tool" --help | grep -qF -e "$o" || { echo "$tool --help lacks $o" >&2; bad=1; }
	done
done
# Every field of every struct on disk and on the wire is in the page that describes it.
fields() { sed -n '/^struct talos_\(disk\|wire\)_/,/^};/p' "$@" | sed -n 's/^\t[a-z0-9_]* \([a-z0-9_, ]*\)\(\[.*\)\{0,1\};.*/\1/p' | tr ', ' '\n\n' | sort -u; }
for f in $(fields engine/include/talos/format.h fs/include/talos/fs_format.h); do
	grep -qw "$f" man/talosfs-format.5 || { echo "talosfs-format.5 lacks the field $f" >&2; bad=1; }
done
for f in $(fields repl/wire.h); do
	grep -qw "$f" man/talosfs-replication.7 || { echo "talosfs-replication.7 lacks the field $f" >&2; bad=1; }
done
for f in $(sed 's/^struct talos_pair/struct talos_disk_pair/' fs/include/talos/pair_format.h | fields); do
	grep -qw "$f" man/talosfs-export.5 || { echo "talosfs-export.5 lacks the field $f" >&2; bad=1; }
done
[ $bad = 0 ] && echo "man pages: in step with --help"
exit $bad
