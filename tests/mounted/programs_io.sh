#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Programs that load a filesystem and check what it answers: dbench, fio, stress-ng, bonnie++. A backup is
# attached meanwhile, and equal afterwards; both images are clean. LONG=1: minutes of each, and all of
# stress-ng's filesystem stressors.
. "$(dirname "$0")/lib.sh"
need dbench dbench
need fio fio
need stress-ng stress-ng
need bonnie++ bonnie++
long=${LONG:-}

# run NAME COMMAND...: its output only if it fails
run() {
	local name=$1
	shift
	"$@" >"$dir/out" 2>&1 </dev/null || fail "$name: exit $?: $(tail -n 30 "$dir/out")"
}

with_dbench() {
	mkdir "$A/dbench"
	run dbench dbench -D "$A/dbench" -t $([ "$long" ] && echo 60 || echo 3) 4
	grep -q '^Throughput' "$dir/out" || fail "dbench: $(cat "$dir/out")"
}

# Each block is written at random with its sum and its place, and read back.
with_fio() {
	local engine direct block size=8M
	[ -z "$long" ] || size=512M
	mkdir "$A/fio"
	while read -r engine direct block; do
		run "fio $engine" fio --name="$engine" --directory="$A/fio" --ioengine="$engine" --direct="$direct" \
			--rw=randwrite --bs="$block" --size=$size --iodepth=8 --numjobs=2 --fsync=100 \
			--verify=xxhash --verify_fatal=1 --verify_state_save=0 --randseed="$seed"
	done <<-ENGINES
		psync 0 5000
		mmap 0 4k
		libaio 1 16k
		io_uring 0 64k
	ENGINES
	echo "fio: psync, mmap, libaio with O_DIRECT, io_uring; all verified"
}

with_stress_ng() {
	local s stressors=
	if [ -n "$long" ]; then
		run stress-ng stress-ng --class filesystem --sequential 1 --verify --timeout 5s --temp-path "$A"
		return
	fi
	for s in access chdir chmod chown dentry dir fallocate filename flock fpunch fstat getdent hdd \
		link lockf open readahead rename seek sendfile symlink sync-file utime xattr; do
		stressors="$stressors --$s 1"
	done
	# shellcheck disable=SC2086
	run stress-ng stress-ng $stressors --hdd-bytes 4M --fallocate-bytes 4M --readahead-bytes 4M \
		--seek-size 4M --sync-file-bytes 4M --verify --timeout 3s --temp-path "$A"
}

with_bonnie() {
	local sizes="-f -r 16 -s 32 -n 1" # -f: without 32 million writes of one byte
	[ -z "$long" ] || sizes="-r 512 -s 1024 -n 16"
	mkdir "$A/bonnie"
	# shellcheck disable=SC2086
	run bonnie++ bonnie++ -d "$A/bonnie" -u root -q $sizes
}

compare() {
	wait_for 120 caught_up
	python3 "$here/tree.py" "$A" >"$dir/list.a"
	python3 "$here/tree.py" "$B" >"$dir/list.b"
	diff "$dir/list.a" "$dir/list.b" | head -n 20 >"$dir/differ"
	[ ! -s "$dir/differ" ] || fail "the backup differs: $(cat "$dir/differ")"
	[ "$(wc -l <"$dir/list.a")" -gt 4 ] || fail "nothing is left to compare: $(cat "$dir/list.a")"
}

SIZE=4G start_pair
part dbench with_dbench
part fio with_fio
part stress-ng with_stress_ng
part bonnie++ with_bonnie
part 'the backup is the same' compare
umount_wait "$B"
umount_wait "$A"
for i in "$image_a" "$image_b"; do
	fsck.talosfs -n "$i" >"$dir/out" || fail "fsck: $(cat "$dir/out")"
done
