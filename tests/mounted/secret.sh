#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A pair that shares a secret: everything works, under TLS; whoever has another secret, or none, is
# turned away, is told why, and disturbs nobody.
. "$(dirname "$0")/lib.sh"

make_secret() {
	head -c 32 /dev/urandom | base64 >"$1"
	chmod 600 "$1"
}
secret=$dir/secret other=$dir/other
make_secret "$secret"
make_secret "$other"
MOUNT_OPTIONS="secret=$secret"

says() { talosfs status "$1" | grep -q "$2"; }
# refused PATTERN IMAGE COMMAND...: it fails with one line like PATTERN, and IMAGE stays as it is
refused() {
	local pattern=$1 file=$2 before
	shift 2
	before=$(sha256sum <"$file")
	if "$@" 2>"$dir/err"; then fail "accepted: $*"; fi
	grep -Eq "$pattern" "$dir/err" || fail "$*: said '$(cat "$dir/err")', not '$pattern'"
	[ "$(wc -l <"$dir/err")" = 1 ] || fail "$*: not one line: $(cat "$dir/err")"
	[ "$before" = "$(sha256sum <"$file")" ] || fail "$*: changed $file"
	echo "ok: $(sed "s|$dir/||g" "$dir/err")"
}

# A secret's file.
mkfs.talosfs --size 128M "$dir/c.tfs" >/dev/null
mkdir "$dir/c"
try() { mount.talosfs "$dir/c.tfs" "$dir/c" -o "listen=$addr_a,secret=$1"; }
refused 'no such file.*/dev/urandom' "$dir/c.tfs" try "$dir/none"
refused 'regular file' "$dir/c.tfs" try "$dir"
mkfifo "$dir/fifo"
refused 'regular file' "$dir/c.tfs" try "$dir/fifo"
echo short >"$dir/bad" && chmod 600 "$dir/bad"
refused '16 to 4096 bytes' "$dir/c.tfs" try "$dir/bad"
head -c 4098 /dev/zero >"$dir/bad"
refused '16 to 4096 bytes' "$dir/c.tfs" try "$dir/bad"
for mode in 640 604 620; do
	make_secret "$dir/bad" && chmod $mode "$dir/bad"
	refused 'chmod 600' "$dir/c.tfs" try "$dir/bad"
done
make_secret "$dir/bad" && chown 12345 "$dir/bad"
refused 'another user' "$dir/c.tfs" try "$dir/bad"

# Copy, in sync, writes.
start_pair
[ "$(status_of "$A" replication.members.0.link.transport 2>/dev/null || status_of "$B" replication.link.transport)" = tls ] ||
	fail "not under TLS: $(talosfs status --json "$B")"
cp -r "$top/engine" "$A/"
head -c 20000000 /dev/urandom >"$A/big"
sync "$A/big"
wait_for 20 caught_up
diff -r "$top/engine" "$B/engine"
cmp "$A/big" "$B/big"
echo "ok: in sync under TLS"

# Others: an empty replica with another secret, or with none.
mkfs.talosfs --backup "$dir/d.tfs" >/dev/null
join() { mount.talosfs "$dir/d.tfs" "$dir/c" -o "primary=$addr_a,timeout=2s$1"; }
refused 'has another secret: .*secret=' "$dir/d.tfs" join ",secret=$other"
refused 'has a secret: .*secret=' "$dir/d.tfs" join ""
# And the other way round.
mount.talosfs "$dir/c.tfs" "$dir/c" -o "listen=$own_host:$((port + 2))"
mkdir "$dir/d"
refused 'has no secret: .*secret=' "$dir/d.tfs" mount.talosfs "$dir/d.tfs" "$dir/d" \
	-o "primary=$own_host:$((port + 2)),timeout=2s,secret=$secret"
umount "$dir/c"

# Plain bytes to a port that expects TLS are cut off; a visitor that says nothing, after 5 seconds.
python3 - "$own_host" "$port" <<'END'
import socket, sys, time
def visit(data):
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    s.settimeout(10)
    s.sendall(data)
    began = time.monotonic()
    try:
        while s.recv(100): pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began
assert visit(b"TLOF" + bytes(300)) < 1
assert visit(b"\x16" + bytes(8000)) < 1
assert visit(b"GET / HTTP/1.0\r\n\r\n") < 1
assert 4 < visit(b"") < 7
END
echo "x" >"$A/after" && sync "$A/after"
is "$B" replication.in_sync true
echo "ok: strangers are cut off, and disturb nobody"

# The log has a line about strangers, but not one for each.
mount.talosfs -f "$dir/c.tfs" "$dir/c" -o "listen=$own_host:$((port + 2)),secret=$other" 2>"$dir/log" &
wait_for 10 is "$dir/c" role primary
python3 - "$own_host" "$((port + 2))" <<'END'
import socket, sys
for i in range(50):
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
        s.settimeout(10)
        s.sendall(b"TLOF" + bytes(300))
        try:
            while s.recv(100): pass
        except ConnectionResetError:
            pass
END
umount "$dir/c"
wait
[ "$(grep -c 'turned away' "$dir/log")" = 1 ] || fail "the log: $(cat "$dir/log")"
echo "ok: $(grep 'turned away' "$dir/log" | sed 's/.*warning/warning/')"

# A mounted backup says why it is refused, and goes on when that is mended.
umount "$B"
mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b,secret=$other" 2>"$dir/err"
wait_for 10 says "$B" 'has another secret'
umount "$B"
mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b" 2>"$dir/err"
wait_for 10 says "$B" 'has a secret: mount this node with the same secret='
umount "$B"
mount.talosfs "$image_b" "$B" -o "primary=$addr_a,listen=$addr_b,secret=$secret"
wait_for 20 is "$B" replication.in_sync true
echo "ok: a backup says why it is refused"

# Any address may be listened on.
make_secret "$dir/bad"
mount.talosfs "$dir/c.tfs" "$dir/c" -o "listen=0.0.0.0:$((port + 2)),secret=$other"
umount "$dir/c"

# Promotion, told over TLS; the old primary is out.
echo "y" >"$A/last" && sync "$A/last"
talosfs promote "$B" >/dev/null
wait_for 10 says "$A" deposed
if touch "$A/x" 2>/dev/null; then fail "a deposed primary took a write"; fi
[ "$(cat "$B/last")" = y ]
echo z >"$B/new" && sync "$B/new"
pid=$(pid_of "$A")
umount "$A"
wait_for 30 gone "$pid"
refused 'another replica was promoted' "$image_a" mount.talosfs "$image_a" "$A" -o "listen=$addr_a,secret=$secret"
echo "ok: promoted, and the old primary is refused"
