# SPDX-License-Identifier: MIT
"""Everything that can be seen of a tree, a line for each name, in order: tree.py DIR [nodirsize] [noino].

Two trees are the same if their lists are: names, types, modes, owners, link counts, sizes, times of change, devices,
targets of links, extended attributes, contents; and which names are one file, told by inode numbers (noino: by the first
of its names, for a copy).
"""
import hashlib, os, stat, sys

top, more = sys.argv[1], sys.argv[2:]
first_name = {}


def sum_of(path):
    h = hashlib.sha1()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def identity(st, name):
    if "noino" not in more:
        return st.st_ino
    return first_name.setdefault(st.st_ino, name) if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode) else "-"


def line(name):
    path = os.path.join(top, name)
    st = os.lstat(path)
    is_dir = stat.S_ISDIR(st.st_mode)
    attrs = [(a, hashlib.sha1(os.getxattr(path, a, follow_symlinks=False)).hexdigest())
             for a in sorted(os.listxattr(path, follow_symlinks=False))]
    content = sum_of(path) if stat.S_ISREG(st.st_mode) else os.readlink(path) if stat.S_ISLNK(st.st_mode) else "-"
    size = "-" if is_dir and "nodirsize" in more else st.st_size
    when = "-" if stat.S_ISLNK(st.st_mode) and "noino" in more else st.st_mtime_ns
    links = "-" if is_dir and "nodirsize" in more else st.st_nlink
    print(ascii(name), oct(st.st_mode), st.st_uid, st.st_gid, links, size, when, st.st_rdev, identity(st, name), content,
          attrs)


def walk(name):
    if name:
        line(name)
    path = os.path.join(top, name)
    if os.path.isdir(path) and not os.path.islink(path):
        for n in sorted(os.listdir(path)):
            walk(os.path.join(name, n))


walk("")
