# SPDX-License-Identifier: MIT
# What the mounted tests share. Source it; then $A and $B are mount points, $image_a and $image_b
# images, all in a temporary folder that goes away at the end, with every daemon that was started.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
OUT=${OUT:-$top/build}
export PATH=$OUT:$OUT/tests/mounted:$PATH

skip() {
	echo "SKIP: $*"
	exit 77
}
[ "$(id -u)" = 0 ] || skip "mounting needs root"
[ -c /dev/fuse ] || skip "there is no /dev/fuse"

dir=$(mktemp -d "${TMPDIR:-/tmp}/talosfs-test.XXXXXX")
A=$dir/a B=$dir/b image_a=$dir/a.tfs image_b=$dir/b.tfs
mkdir "$A" "$B"
# Loopback and TCP, or as the environment says: see tests/lib/test_net.h. Tests may run side by side: each has
# a loopback address of its own, and ports from $port on, below those that the kernel gives out.
own_host=127.$((1 + ($$ >> 16 & 63))).$(($$ >> 8 & 255)).$(($$ & 255))
port=$((10000 + $$ * 251 % 20000))
read -r host_a host_b <<<"${TALOS_TEST_HOSTS:-$own_host $own_host}"
addr_a=$host_a:$port addr_b=$host_b:$((port + 1))
transport=${TALOS_TEST_TRANSPORT:-tcp}
if [ -n "${TALOS_TEST_SECRET:-}" ]; then # all nodes share one: TLS where it is TCP
	(umask 077 && head -c 32 /dev/urandom | base64 >"$dir/secret")
fi
mount.talosfs() {
	[ "$transport" = tcp ] || set -- "$@" -o "transport=$transport"
	if [ -n "${TALOS_TEST_SECRET:-}" ]; then
		set -- "$@" -o "secret=$dir/secret"
	elif [ "$host_a" != "$own_host" ]; then
		set -- "$@" -o insecure
	fi
	command mount.talosfs "$@"
}

seed=${SEED:-$RANDOM}
echo "SEED=$seed"
RANDOM=$seed

# json NAME[.NAME]...: one value of the JSON on stdin
json() {
	python3 -c '
import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."):
    v = v[int(k)] if isinstance(v, list) else v[k]
print(str(v).lower() if isinstance(v, bool) else v)' "$1"
}
status_of() { talosfs status --json "$1" | json "$2"; }
pid_of() { status_of "$1" pid; }
is() { [ "$(status_of "$1" "$2")" = "$3" ]; }

# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
	local until=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $until ]; then
			echo "waited too long for: $*" >&2
			return 1
		fi
		sleep 0.02
	done
}
# What a process had open may be let go a moment after it ended.
umount() {
	local until=$((SECONDS + 10))
	until command umount "$@" 2>"$dir/umount"; do
		grep -q busy "$dir/umount" && [ $SECONDS -lt $until ] || { cat "$dir/umount" >&2; return 32; }
		sleep 0.1
	done
}
gone() { ! kill -0 "$1" 2>/dev/null || grep -qs '^State:.Z' "/proc/$1/status"; }
kill9() {
	kill -9 "$1"
	wait_for 30 gone "$1"
}
fail() {
	echo "$*" >&2
	exit 1
}

# tool_refuses PATTERN COMMAND...: it fails with one line like PATTERN
tool_refuses() {
	local pattern=$1
	shift
	if timeout 60 "$@" >"$dir/out" 2>"$dir/err" </dev/null; then fail "accepted: $*"; fi
	grep -Eq "$pattern" "$dir/err" || fail "$*: said '$(cat "$dir/err")', not '$pattern'"
	[ "$(grep -c '^talosfs:' "$dir/err")" = 1 ] || fail "$*: not one line: $(cat "$dir/err")"
}
same() { [ "$1" = "$2" ] || fail "'$1' is not '$2'"; }
umount_wait() {
	local p
	p=$(pid_of "$1")
	umount "$1"
	wait_for 120 gone "$p"
}

# need PROGRAM PACKAGE: a test that lacks one has failed, not been skipped
need() { command -v "$1" >/dev/null || fail "there is no $1: install the package $2 (packages.sh does)"; }
# part NAME COMMAND...: says how long it took
part() {
	local name=$1 from=${EPOCHREALTIME/./} to
	shift
	"$@"
	to=${EPOCHREALTIME/./}
	printf '%s: %d.%d s\n' "$name" $(((to - from) / 1000000)) $(((to - from) / 100000 % 10))
}

cleanup() {
	local code=$? d p
	trap - EXIT
	set +e
	# A stopped daemon would hold up everything below.
	for p in $(pgrep -f "mount.talosfs $dir/"); do kill -CONT "$p"; done
	for d in "$dir"/*/; do
		d=${d%/}
		grep -qs " $d fuse.talosfs" /proc/mounts || continue
		p=$(timeout 5 talosfs status --json "$d" 2>/dev/null | json pid 2>/dev/null)
		umount "$d" 2>/dev/null || umount -l "$d"
		if [ -n "$p" ]; then
			kill -CONT "$p" 2>/dev/null
			wait_for 30 gone "$p" || kill -9 "$p"
		fi
	done
	[ -n "${KEEP:-}" ] || rm -rf "$dir"
	if [ $code = 0 ]; then
		echo "PASS: $(basename "$0")"
	elif [ $code != 77 ]; then
		echo "FAIL: $(basename "$0") (exit $code)"
	fi
	exit $code
}
trap cleanup EXIT
trap 'exit 143' TERM # of a time limit: not a pass

# start_pair [MKFS OPTION]...: a primary on $A and its backup, in sync, on $B
start_pair() {
	local more=${MOUNT_OPTIONS:+,$MOUNT_OPTIONS}
	mkfs.talosfs --size "${SIZE:-1G}" "$@" "$image_a" >/dev/null
	mount.talosfs "$image_a" "$A" -o "listen=$addr_a$more"
	mkfs.talosfs --backup "$image_b" >/dev/null
	mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b$more"
	wait_for 20 is "$B" replication.in_sync true
	[ "$transport" = tcp ] || wait_for 5 is "$B" replication.link.transport "$transport"
}
# Everything that the primary has is visible at the backup.
# A writer with fsync in $A, until the daemon there is killed at a random moment. $last becomes the
# number of the last record that was acknowledged.
write_until_killed() {
	local w new
	"$writer" "$A/w" $((last + 1)) >"$dir/acked" &
	w=$!
	sleep "0.$((RANDOM % 400 + 100))"
	kill9 "$(pid_of "$A")"
	wait $w || true
	umount "$A"
	new=$(tail -n 1 "$dir/acked")
	last=${new:-$last}
}
caught_up() { [ "$(status_of "${1:-$A}" log.end)" = "$(status_of "${2:-$B}" log.applied)" ]; } # PRIMARY BACKUP
