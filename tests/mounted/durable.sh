#!/bin/bash
# SPDX-License-Identifier: MIT
# What fsync, fdatasync, fsync of a directory, O_SYNC, O_DSYNC and close promise: the daemon is killed
# right behind each, and everything that the call stands for is there after the next mount.
. "$(dirname "$0")/lib.sh"

mkfs.talosfs --size 256M "$image_a" >/dev/null

# after CALL: run it in $A, kill the daemon in the same breath, mount again
after() {
	python3 - "$1" "$A" "$(pid_of "$A")" <<'EOF'
import os, signal, sys
call, top, daemon = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = os.urandom(300000)
def write(path, flags=0):
    f = os.open(path, os.O_CREAT | os.O_WRONLY | flags, 0o600)
    done = 0
    while done < len(data):
        done += os.write(f, data[done:])
    return f
os.chdir(top)
open("../data", "wb").write(data)
os.mkdir("before-" + call)          # acknowledged before: covered, too
if call == "fsync":
    os.fsync(write(call))
elif call == "fdatasync":
    os.fdatasync(write(call))
elif call == "fsync_dir":
    f = write("tmp")
    os.fsync(f)
    os.rename("tmp", call)
    os.fsync(os.open(".", os.O_RDONLY))
elif call == "o_sync":
    write(call, os.O_SYNC)
elif call == "o_dsync":
    write(call, os.O_DSYNC)
elif call == "msync":
    import mmap
    f = os.open(call, os.O_CREAT | os.O_RDWR, 0o600)
    os.ftruncate(f, len(data))
    m = mmap.mmap(f, len(data))
    m[:] = data
    m.flush()
os.kill(daemon, signal.SIGKILL)
EOF
}

again() {
	wait_for 10 gone "$1"
	umount "$A"
	mount.talosfs "$image_a" "$A" -o "$mode"
}

for mode in writeback nowriteback; do
	mount.talosfs "$image_a" "$A" -o "$mode"
	for call in fsync fdatasync fsync_dir o_sync o_dsync msync; do
		pid=$(pid_of "$A")
		after $call
		again "$pid"
		[ -d "$A/before-$call" ] || fail "$mode, $call: what came before it is lost"
		cmp "$dir/data" "$A/$call" || fail "$mode, $call: its data are lost"
		rm -r "$A/before-$call" "$A/$call"
	done

	# close promises nothing by itself; but within commit=, a second, all that was closed is durable.
	head -c 300000 /dev/urandom >"$dir/data"
	cp "$dir/data" "$A/closed"
	durable() { [ "$(status_of "$A" log.durable)" = "$(status_of "$A" log.end)" ]; }
	wait_for 30 durable # a second, on an idle machine
	pid=$(pid_of "$A")
	kill9 "$pid"
	again "$pid"
	cmp "$dir/data" "$A/closed" || fail "$mode: what was closed did not become durable by itself"

	# What nobody synced may be gone, but never in part: a write of one request is whole or not there.
	pid=$(pid_of "$A")
	python3 -c '
import os, signal, sys
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o600)
os.write(f, b"x" * 100000)
os.close(f)
os.kill(int(sys.argv[2]), signal.SIGKILL)' "$A/unsynced" "$pid"
	again "$pid"
	if [ -e "$A/unsynced" ]; then
		size=$(stat -c %s "$A/unsynced")
		[ "$mode" = writeback ] || [ "$size" = 0 ] || [ "$size" = 100000 ] ||
			fail "a write of 100000 bytes left $size"
		head -c "$size" /dev/zero | tr '\0' x | cmp - "$A/unsynced"
		rm "$A/unsynced"
	fi
	rm "$A/closed"
	umount "$A"
	echo "$mode: held"
done
