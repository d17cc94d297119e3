#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What operations cost on a mount, in one run: a FUSE filesystem that only answers (null, the ceiling),
# ext4, libfuse's passthrough over it, talosfs, talosfs with one backup over TCP, and null, passthrough
# and talosfs alone without writeback caching. Usage: run.sh BUILD-FOLDER; needs root.
#
#   QUICK=1        under three minutes: fewer and smaller operations
#   JSON=1         the best of the rounds as objects, one a line; otherwise tables, and ratios beside their bars
#   DIR=...        where the images are made, on the device to measure (default: /tmp)
#   FS="null .."   which of null null-nowb ext4 passthrough passthrough-nowb talosfs talosfs+backup talosfs-nowb
#   OPS=a,b        which operations;  THREADS="1 8", ROUNDS=n
#
# All are mounted at once, and each operation is run on one after the other (fsbench.c). ext4 lies on a
# loop device with direct I/O, so that no page is cached twice. passthrough_ll looks for each inode in a list
# of all that it knows: large trees take it long. readdirplus-cold comes at the end: all are
# mounted anew, talosfs with a cache of a tenth of what the volume holds.
set -euo pipefail
OUT=$(cd "${1:-build}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
TMPDIR=${DIR:-/tmp}
exec 3>&1 1>&2 # stdout is for results
. "$here/../../mounted/lib.sh"
PATH=$OUT:$PATH

all_ops=create,openread,missing,fstat,getxattr,setxattr,chmod,rename,link,unlink,mkdir,rmdir
all_ops+=,readdirplus,seqwrite,seqread,randwrite,fsync,untar,rm-rf
ops=${OPS:-$all_ops,readdirplus-cold}
list=${FS:-null null-nowb ext4 passthrough passthrough-nowb talosfs talosfs+backup talosfs-nowb}
threads=${THREADS:-1 2 8} rounds=${ROUNDS:-5}
sizes=(--files=12000 --fsyncs=600 --stream=1024 --random=1024 --random-writes=65536)
listed=20000 tar_files=40000
if [ -n "${QUICK:-}" ]; then
	rounds=${ROUNDS:-1}
	sizes=(--files=1200 --fsyncs=120 --stream=128 --random=64 --random-writes=8192)
	listed=20000 tar_files=4000
fi

wants() { [[ " $list " = *" $1 "* ]]; }
is_mounted() { grep -qs " $1 " /proc/mounts; }

# passthrough_ll holds every inode open that it knows.
ulimit -n 1000000 2>/dev/null || ulimit -n "$(ulimit -Hn)"
at_most=$(($(ulimit -n) / 2))
if [ $at_most -lt $listed ] && [[ "$list" = *passthrough* ]]; then
	echo "only $(ulimit -n) open files are allowed: smaller trees"
	listed=$at_most tar_files=$at_most
fi
sizes+=(--listed=$listed)

# --- a tree to unpack -----------------------------------------------------------------------------------

# Sizes as of sources: a third below 1 KiB, most below 16 KiB.
make_tar() {
	local tree=$dir/src/tree i sub
	head -c 65536 /dev/urandom >"$dir/bytes"
	for ((i = 0; i < tar_files; i += 100)); do
		sub=$tree/$((i / 2000))/$((i / 100 % 20))
		mkdir -p "$sub"
	done
	python3 - "$tree" "$tar_files" "$dir/bytes" <<'END'
import sys
tree, count, data = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "rb").read()
sizes = (300, 700, 900, 1500, 2500, 4000, 6000, 9000, 14000, 40000)
for i in range(count):
    with open(f"{tree}/{i // 2000}/{i // 100 % 20}/file{i}.c", "wb") as f:
        f.write(data[:sizes[i * 7 % 10]])
END
	tar -C "$dir/src" -cf "$dir/tree.tar" tree
	rm -rf "$dir/src"
}

# --- mounting ---------------------------------------------------------------------------------------------

declare -A where pids under
mkdir "$dir"/{null,null-nowb,ext4,pass,pass-nowb,nowb,pair}

# Each daemon has a session of its own, as those of talosfs have: the scheduler shares out by sessions
# (autogroups), and on a busy machine one that is in ours gains much.
build_passthrough() {
	local example=/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c
	[ -e $example ] || return 1
	cp /usr/share/doc/libfuse3-dev/examples/passthrough_*.[ch] "$dir/"
	# shellcheck disable=SC2046
	gcc -O2 -w -DHAVE_STATX -o "$dir/passthrough_ll" "$dir/passthrough_ll.c" $(pkg-config --cflags --libs fuse3)
}
mount_null() { # NAME OPTION...
	local name=$1
	shift
	setsid nullfs "$@" "$dir/$name" 3>&- &
	where[$name]=$dir/$name pids[$name]=$!
	wait_for 10 is_mounted "$dir/$name"
}
mount_ext4() {
	loop=${loop:-$(losetup --find --show --direct-io=on "$dir/ext4.img" 3>&-)}
	mount "$loop" "$dir/ext4"
	where[ext4]=$dir/ext4
}
mount_passthrough() { # NAME FOLDER OPTION
	local name=$1 at=$dir/$2 source=$dir/ext4/under-$2
	mkdir -p "$source"
	setsid "$dir/passthrough_ll" -f -o "source=$source,cache=auto,xattr,$3,allow_other,default_permissions" "$at" 3>&- &
	where[$name]=$at pids[$name]=$! under[$name]=$source
	wait_for 10 is_mounted "$at"
}
mount_talosfs() { # CACHE-SIZE
	mount.talosfs "$dir/alone.tfs" "$A" ${1:+-o "cache=$1"} 3>&-
	where[talosfs]=$A pids[talosfs]=$(pid_of "$A")
}
mount_with_backup() {
	mount.talosfs "$image_a" "$dir/pair" -o "listen=$addr_a" 3>&-
	[ -e "$image_b" ] || mkfs.talosfs --backup "$image_b" >/dev/null
	mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b" 3>&-
	wait_for 60 is "$B" replication.in_sync true
	where[talosfs+backup]=$dir/pair pids[talosfs+backup]="$(pid_of "$dir/pair") $(pid_of "$B")"
}
mount_nowriteback() {
	mount.talosfs "$dir/nowb.tfs" "$dir/nowb" -o nowriteback 3>&-
	where[talosfs-nowb]=$dir/nowb pids[talosfs-nowb]=$(pid_of "$dir/nowb")
}

# The listed folder is some 200 bytes of index for each name.
cold_cache=$((listed * 20))
mount_all() { # CACHE-SIZE: then only those that have a cold form
	where=() pids=() under=()
	if wants null && [ -z "$1" ]; then mount_null null --writeback; fi
	if wants null-nowb && [ -z "$1" ]; then mount_null null-nowb; fi
	if wants ext4 || wants passthrough || wants passthrough-nowb; then mount_ext4; fi
	if wants passthrough; then mount_passthrough passthrough pass writeback; fi
	if wants passthrough-nowb && [ -z "$1" ]; then mount_passthrough passthrough-nowb pass-nowb no_writeback; fi
	if wants talosfs; then mount_talosfs "$1"; fi
	if wants talosfs+backup && [ -z "$1" ]; then mount_with_backup; fi
	if wants talosfs-nowb && [ -z "$1" ]; then mount_nowriteback; fi
	wants ext4 || unset 'where[ext4]'
}
unmount_all() {
	local d p
	for d in "$dir/null" "$dir/null-nowb" "$dir/pass" "$dir/pass-nowb" "$B" "$A" "$dir/pair" "$dir/nowb"; do
		if is_mounted "$d"; then umount "$d"; fi
	done
	for p in ${pids[*]}; do wait_for 60 gone "$p"; done
	if is_mounted "$dir/ext4"; then umount "$dir/ext4"; fi
}
end() {
	local code=$?
	trap - EXIT
	set +e
	for d in null null-nowb pass pass-nowb ext4; do if is_mounted "$dir/$d"; then command umount -l "$dir/$d"; fi; done
	if [ -n "${loop:-}" ]; then losetup -d "$loop"; fi
	(exit $code)
	cleanup
}
trap end EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

targets() { # -> $targets
	local name p spec
	targets=()
	for name in $list; do
		[ -n "${where[$name]:-}" ] || continue
		spec=$name=${where[$name]}
		if [ -n "${under[$name]:-}" ]; then spec+=,under=${under[$name]}; fi
		for p in ${pids[$name]:-}; do spec+=,pid=$p; done
		targets+=("$spec")
	done
}

# --- running ------------------------------------------------------------------------------------------------

failed=0
bench() { # FSBENCH-OPTION...
	targets
	[ ${#targets[@]} -gt 0 ] || return 0
	fsbench "${sizes[@]}" --tar="$dir/tree.tar,$tar_files" "$@" "${targets[@]}" >>"$dir/lines" || failed=1
}
# The operations of $ops that $1 names; those that need one thread are left out with more.
chosen() { # PATTERN
	tr , '\n' <<<"$ops" | grep -Ex "$1" | paste -sd,
}
small='create|openread|missing|fstat|getxattr|setxattr|chmod|rename|link|unlink|mkdir|rmdir'
bench_group() { # THREADS PATTERN, of the filesystems in $list
	local some
	some=$(chosen "$2") || return 0
	echo "+ $SECONDS s: $1 threads: $some: $list"
	bench --threads="$1" --ops="$some"
}
without_null() {
	local list=" $list "
	list=${list// null / }
	list=${list// null-nowb / }
	"$@"
}

if ! build_passthrough; then
	echo "without passthrough: libfuse3-dev's examples are not there"
	list=${list//passthrough-nowb/}
	list=${list//passthrough/}
fi
truncate -s 16G "$dir/ext4.img"
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$dir/ext4.img"
for image in "$dir/alone.tfs" "$dir/nowb.tfs" "$image_a"; do mkfs.talosfs --size 16G "$image" >/dev/null; done
if chosen 'untar|rm-rf' >/dev/null; then make_tar; fi
mount_all ""
for ((round = 0; round < rounds; round++)); do
	for t in $threads; do
		bench_group "$t" "$small"
		without_null bench_group "$t" 'seqwrite|seqread|randwrite|fsync'
	done
	bench_group 1 readdirplus
	without_null bench_group 1 'untar|rm-rf'
done
if chosen 'readdirplus-cold' >/dev/null; then
	chosen readdirplus >/dev/null || bench --ops=readdirplus
	# Otherwise the mount would read it all from the log, into memory.
	if wants talosfs; then talosfs debug flush "$A" && talosfs debug checkpoint "$A"; fi
	for ((round = 0; round < rounds; round++)); do
		unmount_all
		mount_all "$cold_cache"
		bench --ops=readdirplus-cold
	done
fi
unmount_all
fsbench --report ${JSON:+--json} <"$dir/lines" >&3
exit $failed
