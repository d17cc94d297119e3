# SPDX-License-Identifier: MIT
"""What POSIX and Linux let a program do, through a mount: posix.py DIR. Run as root by posix.sh."""
import ctypes, errno, fcntl, mmap, os, random, stat, struct, subprocess, sys

top = sys.argv[1]
os.chdir(top)
os.umask(0)
libc = ctypes.CDLL(None, use_errno=True)
UID, OTHER = 12345, 23456


def path(fd):
    return f"/proc/self/fd/{fd}"


def put(name, data=b"", mode=0o644):
    with open(name, "wb") as f:
        f.write(data)
    os.chmod(name, mode)


def fails(code, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except OSError as e:
        assert e.errno == code, (fn, args, e)
        return
    raise AssertionError(f"{fn}{args}: no error")


def as_user(uid, fn, groups=()):
    """Run fn in a child with these rights."""
    pid = os.fork()
    if not pid:
        try:
            os.setgroups(list(groups))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            fn()
            os._exit(0)
        except BaseException as e:
            print(f"as {uid}: {e!r}", file=sys.stderr)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


NONE = 0xFFFFFFFF
FULL = acl((1, 6, NONE), (2, 6, UID), (4, 0, NONE), (16, 6, NONE), (32, 0, NONE))


def acls_are_enforced_and_inherited():
    put("f", b"secret", 0o600)
    as_user(UID, lambda: fails(errno.EACCES, open, "f"))
    os.setxattr("f", "system.posix_acl_access", FULL)
    assert stat.S_IMODE(os.stat("f").st_mode) == 0o660
    as_user(UID, lambda: open("f", "r+b").close())
    as_user(OTHER, lambda: fails(errno.EACCES, open, "f"))
    os.chmod("f", 0o600)  # the mask
    as_user(UID, lambda: fails(errno.EACCES, open, "f"))
    as_user(OTHER, lambda: fails(errno.EPERM, os.setxattr, "f", "system.posix_acl_access", FULL))
    os.mkdir("d", 0o711)
    os.setxattr("d", "system.posix_acl_default", FULL)
    os.umask(0o077)
    put("d/x", b"", 0o666)
    os.close(os.open("d/y", os.O_CREAT | os.O_WRONLY, 0o666))
    os.umask(0)
    assert stat.S_IMODE(os.stat("d/y").st_mode) == 0o660
    as_user(UID, lambda: open("d/y", "r+b").close())
    fails(errno.EINVAL, os.setxattr, "f", "system.posix_acl_access", b"\2\0\0\0\1")


def change_by(io):
    name, offset, length = io.split()
    fd = os.open("s", os.O_RDWR)
    at, n = (int(v.replace("k", "")) << 10 for v in (offset, length))
    if name == "pwrite":
        os.pwrite(fd, bytes(n), at)
    elif libc.fallocate(fd, {"falloc": 0, "fpunch": 3}[name], ctypes.c_long(at), ctypes.c_long(n)):
        raise OSError(ctypes.get_errno(), io)


def set_id_bits_go_when_others_change_a_file():
    for change in (lambda: open("s", "r+b").write(b"x"), lambda: os.truncate("s", 1)):
        put("s", b"abc", 0o6777)
        as_user(UID, change)
        assert stat.S_IMODE(os.stat("s").st_mode) == 0o777
    # The kernel's own idea of the mode, which is what execve() goes by: stat -c %a asks for no more.
    for io in ("falloc 64k 64k", "falloc 0 1k", "fpunch 0 1k", "pwrite 0 1k"):
        put("s", b"abc" * 1000, 0o6777)
        as_user(UID, lambda: change_by(io))
        assert subprocess.check_output(["stat", "-c", "%a", "s"]) == b"777\n", io
    put("s", b"abc", 0o6777)
    os.chown("s", UID, UID)
    assert stat.S_IMODE(os.stat("s").st_mode) == 0o777


def sticky_and_set_group_id_directories():
    os.mkdir("t", 0o777)
    os.chmod("t", 0o1777)
    as_user(UID, lambda: put("t/mine"))
    as_user(OTHER, lambda: fails(errno.EPERM, os.unlink, "t/mine"))
    as_user(OTHER, lambda: fails(errno.EPERM, os.rename, "t/mine", "t/m"))
    os.mkdir("g", 0o777)
    os.chown("g", 0, 777)
    os.chmod("g", 0o2777)
    as_user(UID, lambda: os.mkdir("g/sub"))
    as_user(UID, lambda: put("g/file"))
    assert os.stat("g/file").st_gid == 777 and os.stat("g/sub").st_gid == 777
    assert os.stat("g/sub").st_mode & stat.S_ISGID


def files_without_a_name():
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"tmp")
    assert os.fstat(fd).st_nlink == 0
    os.link(path(fd), "named", src_dir_fd=fd, follow_symlinks=True)
    os.close(fd)
    assert open("named", "rb").read() == b"tmp" and os.stat("named").st_nlink == 1
    fd = os.open("named", os.O_RDWR)
    os.unlink("named")
    os.write(fd, b"more")
    assert os.pread(fd, 10, 0) == b"more" and os.fstat(fd).st_nlink == 0
    os.close(fd)


def holes_and_data():
    fd = os.open("sparse", os.O_CREAT | os.O_RDWR, 0o600)
    os.ftruncate(fd, 1 << 62)
    fails(errno.EFBIG, os.ftruncate, fd, (1 << 62) + 1)
    os.pwrite(fd, b"a" * 4096, 1 << 40)
    os.fsync(fd)
    assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 40
    assert os.lseek(fd, 1 << 40, os.SEEK_HOLE) == (1 << 40) + 4096
    fails(errno.ENXIO, os.lseek, fd, (1 << 40) + 4096, os.SEEK_DATA)

    # What the kernel has collected so far counts as data, too.
    late = os.open("late", os.O_CREAT | os.O_RDWR)
    os.ftruncate(late, 1 << 20)
    os.pwrite(late, b"x", 600000)
    assert os.lseek(late, 0, os.SEEK_DATA) <= 600000
    assert os.lseek(late, 600000, os.SEEK_HOLE) > 600000
    os.pwrite(late, b"x", 1 << 20)
    assert os.lseek(late, 1 << 20, os.SEEK_DATA) == 1 << 20
    fails(errno.ENXIO, os.lseek, late, (1 << 20) + 1, os.SEEK_DATA)
    os.close(late)

    def allocate(mode, offset, length):
        off = ctypes.c_long
        if libc.fallocate(fd, mode, off(offset), off(length)):
            raise OSError(ctypes.get_errno(), "fallocate")

    allocate(3, 1 << 40, 100)  # punch, keep
    assert os.pread(fd, 101, 1 << 40) == bytes(100) + b"a"
    allocate(0x10, (1 << 40) + 100, 100)  # zero
    assert os.pread(fd, 201, 1 << 40) == bytes(200) + b"a"
    fails(errno.ENOSPC, allocate, 0, 0, 1 << 50)
    fails(errno.EOPNOTSUPP, allocate, 8, 0, 4096)
    os.ftruncate(fd, 10)
    allocate(1, 0, 1 << 20)
    assert os.fstat(fd).st_size == 10
    allocate(0, 0, 1 << 20)
    assert os.fstat(fd).st_size == 1 << 20
    os.close(fd)


def copies_inside_the_daemon():
    data = random.randbytes(3 << 20)
    put("from", data)
    a, b = os.open("from", os.O_RDONLY), os.open("to", os.O_CREAT | os.O_RDWR, 0o600)
    done = 0
    while done < len(data):
        n = os.copy_file_range(a, b, len(data) - done, done, done)
        assert n
        done += n
    assert open("to", "rb").read() == data


def many_append_to_one_file():
    def write(i):
        fd = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        for n in range(200):
            os.write(fd, b"%d:%06d\n" % (i, n))
        os._exit(0)

    pids = []
    for i in range(4):
        pids.append(os.fork())
        if not pids[-1]:
            write(i)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    lines = open("log").read().split()
    for i in range(4):
        assert [l for l in lines if l[0] == str(i)] == ["%d:%06d" % (i, n) for n in range(200)]


def a_mapping_is_shared():
    fd = os.open("map", os.O_CREAT | os.O_RDWR, 0o600)
    os.ftruncate(fd, 8192)
    m = mmap.mmap(fd, 8192)
    pid = os.fork()
    if not pid:
        mmap.mmap(os.open("map", os.O_RDWR), 8192)[4096:4100] = b"here"
        os._exit(0)
    os.waitpid(pid, 0)
    assert m[4096:4100] == b"here" and os.pread(fd, 4, 4096) == b"here"
    direct = os.open("map", os.O_RDONLY | os.O_DIRECT)
    m.flush()
    buf = mmap.mmap(-1, 4096)
    assert os.preadv(direct, [buf], 4096) == 4096 and buf[:4] == b"here"


def locks_are_local_and_hold():
    put("lock")
    a = os.open("lock", os.O_RDWR)
    fcntl.flock(a, fcntl.LOCK_EX)
    b = os.open("lock", os.O_RDWR)
    fails(errno.EAGAIN, fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(a, fcntl.LOCK_UN)
    fcntl.lockf(a, fcntl.LOCK_EX, 10, 5)

    def other():
        fd = os.open("lock", os.O_RDWR)
        fails(errno.EAGAIN, fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)

    os.chmod("lock", 0o666)
    as_user(UID, other)


def renames_of_every_kind():
    def renameat2(a, b, flags):
        if libc.renameat2(-100, a, -100, b, flags):
            raise OSError(ctypes.get_errno(), "renameat2")

    put("r1", b"1")
    put("r2", b"2")
    fails(errno.EEXIST, renameat2, b"r1", b"r2", 1)
    renameat2(b"r1", b"r2", 2)
    assert open("r1").read() == "2" and open("r2").read() == "1"
    fails(errno.EINVAL, renameat2, b"r1", b"r2", 4)
    os.makedirs("p/q")
    fails(errno.EINVAL, os.rename, "p", "p/q/r")
    os.mkdir("p2")
    before = os.stat(".").st_nlink
    os.rename("p2", "p/q/r")
    assert os.stat(".").st_nlink == before - 1 and os.stat("p/q").st_nlink == 3
    fails(errno.ENOTEMPTY, os.rmdir, "p/q")
    fails(errno.EXDEV, os.rename, "r1", "/tmp/r1")


def names_of_any_bytes():
    os.mkdir("names")
    want = {bytes(random.choice([c for c in range(1, 256) if c != 47]) for _ in range(255))
            for _ in range(50)}
    for n in want:
        os.close(os.open(b"names/" + n, os.O_CREAT | os.O_WRONLY))
    assert set(os.listdir(b"names")) == want
    fails(errno.ENAMETOOLONG, os.stat, b"names/" + b"x" * 256)
    os.symlink("l", "l")
    fails(errno.ELOOP, open, "l")


def nodes_of_every_type():
    for t in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG):
        os.mknod(f"node{t}", t | 0o600)
        assert os.stat(f"node{t}").st_mode == t | 0o600
    for t in (stat.S_IFCHR, stat.S_IFBLK):
        os.mknod(f"node{t}", t | 0o600, os.makedev(1, 3))
        assert os.stat(f"node{t}").st_rdev == os.makedev(1, 3)


def xattrs_of_64_kib():
    put("x")
    big = random.randbytes(65536)
    for space in ("user", "trusted", "security"):
        os.setxattr("x", space + ".big", big)
        assert os.getxattr("x", space + ".big") == big
    fails(errno.EEXIST, os.setxattr, "x", "user.big", b"", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, "x", "user.none", b"", os.XATTR_REPLACE)
    assert set(os.listxattr("x")) >= {"user.big", "trusted.big", "security.big"}


def places_in_a_directory_stay():
    """seekdir() to any place, while other names come and go."""
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    os.mkdir("many")
    for i in range(3000):
        os.mknod(f"many/keep{i}")
    d = ctypes.c_void_p(libc.opendir(b"many"))

    def following():
        names = []
        while True:
            e = libc.readdir(d)
            if not e:
                return names
            names.append(ctypes.string_at(e + 19).decode())

    def kept(names):
        return [n for n in names if n.startswith("keep")]

    for _ in range(700):
        assert libc.readdir(d)
    place = libc.telldir(d)
    rest = kept(following())
    for i in range(500):
        os.mknod(f"many/new{i}")
        if i % 2:
            os.unlink(f"many/new{i}")
    libc.seekdir(d, ctypes.c_long(place))
    assert kept(following()) == rest
    libc.rewinddir(d)
    assert len(set(kept(following()))) == 3000


def inode_numbers_are_never_used_again():
    seen = set()
    for i in range(200):
        put("n")
        ino = os.stat("n").st_ino
        assert ino not in seen
        seen.add(ino)
        os.unlink("n")


def statfs_is_sound():
    s = os.statvfs(".")
    assert s.f_namemax == 255 and 0 < s.f_bavail <= s.f_bfree <= s.f_blocks and s.f_bsize == 4096


tests = [t for name, t in list(globals().items())
         if callable(t) and getattr(t, "__module__", "") == "__main__" and "_" in name
         and name not in ("as_user", "change_by")]
for t in tests:
    t()
print(f"{len(tests)} groups of calls")
