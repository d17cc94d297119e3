#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# How many requests the kernel sends for an operation: what a mount costs is first of all their number.
. "$(dirname "$0")/lib.sh"
mkfs.talosfs --size 256M "$image_a" >/dev/null
mount.talosfs "$image_a" "$A" -o nowriteback
mkdir "$A/d"

# what CODE: the requests that this Python asks for, ten times, with i = 0 to 9; by operation, sorted
what() {
	(cd "$A/d" && python3 - "$A" "$1" <<'END'
import json, os, subprocess, sys, time

def counts():
    s = subprocess.run(["talosfs", "status", "--json", sys.argv[1]], capture_output=True, check=True)
    return json.loads(s.stdout)["fs"]["by_op"]

def settled():  # a close is told behind its caller's back
    now = counts()
    while True:
        time.sleep(0.05)
        before, now = now, counts()
        if before == now:
            return now

before = settled()
fds = []
for i in range(10):
    exec(sys.argv[2])
after = settled()
print(*(f"{op}:{after[op] - before[op]}" for op in sorted(after) if after[op] != before[op]))
END
	)
}
# expect CODE REQUESTS. The folder is asked for anew behind each change; before the first one it may be known.
expect() {
	local got
	got=$(what "$1")
	[[ "$got" =~ ^$2$ ]] || fail "$1: $got, not $2"
	echo "$1: $got"
}

# What the kernel had it may have given up meanwhile: then it has it again.
expect_kept() { # CODE REQUESTS
	local try
	for try in 1 2 3; do
		if [[ "$(what "$1")" =~ ^$2$ ]]; then break; fi
	done
	expect "$1" "$2"
}

# The kernel looks for security.capability before the first write of an inode, and then only if attributes came anew.
write=', os.O_CREAT | os.O_WRONLY); os.write(f, b"x" * 1000); os.close(f)'
expect "f = os.open(f'f{i}'$write" "create:10 getattr:(9|10) getxattr:10 lookup:10 release:10 write:10"
what "os.stat(f'f{i}')" >/dev/null # times behind a write: kernels differ
expect "os.stat(f'f{i}')" ""
expect "os.path.exists('missing')" "lookup:1"
expect "f = os.open('f1', os.O_WRONLY); os.write(f, b'y'); os.write(f, b'z'); os.close(f)" \
	"(getxattr:1 )?open:10 release:10 write:20"
expect "f = os.open(f'f{i}', os.O_RDONLY); os.read(f, 1000); os.close(f)" "open:10 read:10 release:10"
expect_kept "f = os.open(f'f{i}', os.O_RDONLY); os.read(f, 1000); os.close(f)" "open:10 release:10"
expect "os.chmod(f'f{i}', 0o600)" "setattr:10"
expect "os.rename(f'f{i}', f'g{i}')" "getattr:(9|10) lookup:10 rename:10"
expect "os.mkdir(f's{i}')" "getattr:(9|10) lookup:10 mknod:10"
expect "os.rmdir(f's{i}')" "getattr:(9|10) rmdir:10"
expect "os.link(f'g{i}', f'h{i}')" "getattr:(9|10) link:10 lookup:10"
expect "os.unlink(f'h{i}')" "getattr:(9|10) unlink:10"
expect "os.setxattr(f'g{i}', 'user.a', b'v')" "setxattr:10"
expect "os.getxattr(f'g{i}', 'user.a')" "getxattr:10"

# A large file comes in requests of 1 MiB, though the kernel's own limit for a mount is 128 KiB.
head -c 8M /dev/urandom >"$A/d/large"
expect "
if i == 0:
    f = os.open('large', os.O_RDONLY)
    os.fsync(f)
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
    while os.read(f, 1 << 20):
        pass
    os.close(f)" "fsync:1 open:1 read:(8|9|1[0-2]) release:1"

umount_wait "$A"
mount.talosfs "$image_a" "$A" -o writeback
echo collected:
expect "
f = os.open('log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for k in range(100):
    os.write(f, b'x' * 100)" "create:1 (getattr:[0-9]+ )?(getxattr:1 )?lookup:1 open:9 (setattr:[0-9]+ )?(write:[0-9])?"
