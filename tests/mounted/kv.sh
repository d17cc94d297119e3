#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Files as pairs: get, put, del, scan, export, import and batches, on a mount and on an image.
. "$(dirname "$0")/lib.sh"
pairs=${PAIRS:-30000}

# The same commands work on a mount, on a directory in it, and on an image.
one_by_one() {
	local t=$1
	echo -n one | talosfs put "$t" b
	echo -n two >"$dir/two"
	talosfs put -p "$t" d/e/f "$dir/two"
	: | talosfs put "$t" empty
	same "$(talosfs get "$t" b)" one
	talosfs get -o "$dir/got" "$t" d/e/f
	cmp "$dir/got" "$dir/two"
	same "$(talosfs get "$t" empty | wc -c)" 0
	head -c 3000000 /dev/urandom >"$dir/large"
	talosfs put --sync "$t" large "$dir/large" # more than one batch
	talosfs get "$t" large | cmp - "$dir/large"
	echo -n x | talosfs put "$t" d.x # before what is in d: '.' < '/'
	same "$(talosfs scan "$t" | tr '\n' ' ')" "b d.x d/e/f empty large "
	same "$(talosfs scan "$t" d/ | tr '\n' ' ')" "d/e/f "
	same "$(talosfs scan --from d/ --limit 2 "$t" | tr '\n' ' ')" "d/e/f empty "
	same "$(talosfs scan -0 --values "$t" d | tr '\0' '|')" "d.x|x|d/e/f|two|"
	same "$(talosfs scan --json --values "$t" b | json value)" one
	printf 'a\xff' | talosfs put "$t" $'odd\n\xfe'
	same "$(talosfs scan "$t" odd)" 'odd\012\376'
	same "$(talosfs scan --json --values "$t" odd | json key_base64)" "$(printf 'odd\n\xfe' | base64)"
	same "$(talosfs scan --json --values "$t" odd | json value_base64)" "$(printf 'a\xff' | base64)"
	tool_refuses 'no such key: nothing' talosfs get "$t" nothing
	tool_refuses 'directory' talosfs get "$t" d
	tool_refuses 'put -p' talosfs put "$t" no/such/dir
	tool_refuses 'File name too long' talosfs put "$t" "$(printf 'n%.0s' {1..256})"
	tool_refuses "has no empty name" talosfs put "$t" d/../b
	tool_refuses 'is no key' talosfs get "$t" /
	tool_refuses 'not found' talosfs del "$t" b nothing
	same "$(talosfs get "$t" b)" one # all of them or none
	echo 'put k !!!!' >"$dir/bad"
	tool_refuses 'line 1: the value is not base64' talosfs put --batch "$t" "$dir/bad"
	echo 'get k' >"$dir/bad"
	tool_refuses "line 1: use 'put" talosfs put --batch "$t" "$dir/bad"
	echo 'TALOSKV?' >"$dir/bad"
	tool_refuses 'neither a stream of pairs' talosfs import "$t" "$dir/bad"
	head -c 300 /dev/zero | sed 's/^/TALOSKV\n/' >"$dir/bad"
	tool_refuses 'another version' talosfs import "$t" "$dir/bad"
	talosfs export "$t" "$dir/whole"
	head -c -9 "$dir/whole" >"$dir/bad"
	tool_refuses 'ends too early' talosfs import "$t" "$dir/bad"
	head -c 20000000 /dev/zero | base64 -w0 | sed 's/^/put k /' >"$dir/bad"
	tool_refuses 'split it' talosfs put --batch "$t" "$dir/bad"
	head -c 2000000 /dev/zero | base64 -w0 | sed 's/^/put k /' >"$dir/bad"
	tool_refuses 'one takes about [0-9]+ bytes; split it' talosfs put --batch "$t" "$dir/bad"
	talosfs del "$t" b d.x d/e/f d/e d empty large $'odd\n\xfe'
	same "$(talosfs scan "$t" | wc -l)" 0
}

mkfs.talosfs --size 1G "$image_a" >/dev/null
one_by_one "$image_a"
mount.talosfs "$image_a" "$A" -o noatime
one_by_one "$A"
mkdir "$A/below"
one_by_one "$A/below"
rmdir "$A/below"
pid=$(pid_of "$A")
tool_refuses "in use by process $pid" talosfs get "$image_a" b
tool_refuses 'no talosfs is mounted' talosfs get "$dir" b
tool_refuses 'No such file' talosfs get "$dir/none" b
tool_refuses 'no such option' talosfs get --limit 3 "$A" b
echo "ok: one by one, on an image, a mount, and below it"

# Whatever comes over the control socket, the daemon answers and goes on.
python3 - "$A" <<'PY'
import os, socket, sys
s = os.stat(sys.argv[1])
path = "/run/talosfs/%d:%d.sock" % (os.major(s.st_dev), os.minor(s.st_dev))
def ask(request):
    c = socket.socket(socket.AF_UNIX)
    c.connect(path)
    try:
        c.sendall(request)
        c.shutdown(socket.SHUT_WR)
    except BrokenPipeError:
        pass
    answer = b""
    try:
        while part := c.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer
head = b'{"command":"batch"}\n'
for body in (b"", b"x", b"TALOSKV\n", b"TALOSKV\n\1\0\0\0\0\0\0\0" + b"\xff" * 64, os.urandom(100000)):
    assert b"no stream of pairs" in ask(head + body), body[:20]
assert b"error" in ask(b'{"command":"batch"}')
assert b"not a JSON object" in ask(b"\n" + head)
ask(head + bytes(20 << 20))  # too long: no answer is owed
PY
is "$A" pid "$pid" || fail "the daemon did not survive"
echo "ok: malformed frames are answered"

# What the kernel has cached is true right behind a batch, also where it collects writes.
true_behind_a_batch() {
	echo -n old >"$A/f"
	same "$(cat "$A/f")" old
	[ ! -e "$A/new" ]
	stat -c %s "$A/f" "$A" >/dev/null
	exec 8<"$A/f"
	printf 'put f %s\nput new %s\n' "$(echo -n longer | base64)" "$(echo -n n | base64)" |
		talosfs put --batch "$A"
	same "$(cat "$A/f")" longer
	same "$(cat "$A/new")" n
	same "$(stat -c %s "$A/f")" 6
	same "$(cat <&8)" old # who has it open keeps what he has
	same "$(stat -c %s "$A")" 2
	talosfs del "$A" f
	[ ! -e "$A/f" ]
	same "$(ls "$A")" new
	exec 8<&-
	talosfs del "$A" new
	(umask 027 && echo -n x | talosfs put -p "$A" m/n/u)
	same "$(stat -c %a "$A/m" "$A/m/n/u" | tr '\n' ' ')" "750 640 "
	rm -r "$A/m"
	# One of two names; a writer that has it open, and has not closed it.
	echo -n both >"$A/one"
	ln "$A/one" "$A/two"
	exec 8>>"$A/one"
	echo -n more >&8
	echo -n single | talosfs put "$A" one
	echo -n least >&8
	same "$(cat "$A/one")" single
	same "$(cat "$A/two")" bothmoreleast
	exec 8>&-
	same "$(cat "$A/two")" bothmoreleast
	same "$(stat -c %h "$A/one" "$A/two" | tr '\n' ' ')" "1 1 "
	# A large value comes in pieces; its size is right from the first one on.
	head -c 6000000 /dev/urandom >"$dir/large"
	(while [ ! -e "$dir/stop" ]; do stat -c %s "$A/large" || :; done) >"$dir/sizes" 2>/dev/null &
	watcher=$!
	for i in 1 2 3; do cat "$dir/large" | talosfs put "$A" large; done
	touch "$dir/stop"
	wait $watcher
	rm "$dir/stop"
	same "$(sort -u "$dir/sizes")" 6000000
	cmp "$A/large" "$dir/large"
	rm "$A/one" "$A/two" "$A/large"
}
umount_wait "$A"
for mode in nowriteback writeback; do
	mount.talosfs "$image_a" "$A" -o noatime,$mode
	true_behind_a_batch
	[ $mode = writeback ] || umount_wait "$A"
	echo "ok: caches of the primary, $mode"
done

# A stream that makes a file larger which the kernel knows, and so keeps the size of, is refused.
echo -n abc >"$A/f"
same "$(stat -c %s "$A/f")" 3
python3 - >"$dir/grows" <<'PY'
import struct, subprocess, sys
# One DATA record, at the end of f; its sums are xxhsum's.
def sum64(b, seed):
    import ctypes, ctypes.util
    lib = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
    lib.XXH3_64bits_withSeed.restype = ctypes.c_uint64
    lib.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    return lib.XXH3_64bits_withSeed(b, len(b), seed)
def block(body, count, number):
    b = struct.pack("<II", len(body), count) + body
    return b + struct.pack("<Q", sum64(b, number))
record = struct.pack("<BBHIIIqqQII", 6, 0, 1, 0o100644, 0, 0, 0, 0, 3, 0, 3) + b"f" + b"def"
sys.stdout.buffer.write(b"TALOSKV\n" + struct.pack("<II", 1, 0) + block(record, 1, 0) +
                        block(struct.pack("<Q", 1), 0, 1))
PY
tool_refuses 'put the value as a whole' talosfs put --batch "$A" "$dir/grows"
same "$(cat "$A/f")" abc
rm "$A/f"
echo "ok: what the kernel would not learn of is refused"

# Many pairs, and every kind of file, out and in again, both ways.
python3 - "$A" "$pairs" <<'PY' >"$dir/lines"
import base64, sys
for i in range(int(sys.argv[2])):
    print("put d%03d/key%07d %s" % (i % 100, i, base64.b64encode(b"%0100d" % i).decode()))
PY
split -l 1000 "$dir/lines" "$dir/part."
for p in "$dir"/part.*; do talosfs put -p --batch "$A" "$p"; done
mkdir -p "$A/kinds/"$'we\xffird\n'/deep
ln "$A/d000/key0000000" "$A/kinds/hard"
ln -s target "$A/kinds/sym"
mkfifo "$A/kinds/fifo"
mknod "$A/kinds/null" c 1 3
truncate -s 5000000 "$A/kinds/sparse"
echo end >>"$A/kinds/sparse"
echo x >"$A/kinds/x"
chmod 6711 "$A/kinds/x"
chown 12:34 "$A/kinds/sym" -h
python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.a", bytes(range(256))); os.setxattr(sys.argv[2], "user.d", b"")' \
	"$A/kinds/x" "$A/kinds"
touch -d '1960-02-03 04:05:06.789' "$A/kinds/x"
touch -h -d '2001-02-03 04:05:06.123456789' "$A/kinds/sym"
touch -d '2001-02-03 04:05:06.5' "$A/kinds/"$'we\xffird\n' "$A/kinds" "$A"
# summary DIR: all that must come back; a line for each
summary() {
	(cd "$1" && find . -printf '%p %y %m %U %G %s %n %l %T@ %A@\n' | LC_ALL=C sort && find . -type f -print0 | LC_ALL=C sort -z |
		xargs -0 sha256sum && python3 -c '
import os
for d, _, fs in sorted(os.walk(b".")):
    for f in sorted(fs) + [b"."]:
        p = os.path.join(d, f)
        for x in sorted(os.listxattr(p, follow_symlinks=False)): print(p, x, os.getxattr(p, x, follow_symlinks=False))')
}
summary "$A" >"$dir/before"
talosfs export "$A" "$dir/e.pairs"
talosfs export --format tar "$A" "$dir/e.tar"
talosfs scan "$A" >"$dir/keys"
LC_ALL=C sort -c "$dir/keys"
same "$(wc -l <"$dir/keys")" $((pairs + 6))
umount_wait "$A"
for format in pairs tar; do
	mkfs.talosfs --force --size 1G "$image_a" >/dev/null
	# Into an image the one, into a mount the other.
	if [ $format = pairs ]; then
		talosfs import --json "$image_a" "$dir/e.pairs" 2>"$dir/json"
		mount.talosfs "$image_a" "$A" -o noatime
	else
		mount.talosfs "$image_a" "$A" -o noatime
		ls -lR "$A" >/dev/null
		talosfs import --json "$A" - <"$dir/e.tar" 2>"$dir/json"
	fi
	echo "import of $format: $(json pairs_per_second <"$dir/json") pairs/s"
	# From memory, and from the device.
	summary "$A" | diff "$dir/before" - >"$dir/diff" || fail "$format differs: $(head "$dir/diff")"
	umount_wait "$A"
	talosfs export "$image_a" "$dir/again.pairs"
	cmp "$dir/e.pairs" "$dir/again.pairs"
done
echo "ok: $pairs pairs and every kind of file"

# A full volume says so, and takes deletes.
mkfs.talosfs --force --size 64M "$image_a" >/dev/null
head -c 900000 /dev/urandom >"$dir/large"
for ((i = 0; i < 200; i++)); do
	talosfs put "$image_a" "k$i" "$dir/large" 2>"$dir/err" || break
done
[ $i -gt 10 ] && [ $i -lt 100 ] || fail "the volume was full after $i values"
grep -q 'delete something' "$dir/err" || fail "said: $(cat "$dir/err")"
talosfs del "$image_a" k0 k1 k2 k3
echo "ok: a full volume says what to do"
