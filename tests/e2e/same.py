#!/usr/bin/env python3
"""same.py A B [owner] [sparse]: are two trees the same? Contents, types, modes, times to the nanosecond, link
targets, hard links, extended attributes; with `owner` owners too, with `sparse` that holes stayed holes in B.
Prints up to 20 differences; exit 1 if there is one. What cannot be read in A is an error."""
import os, stat, sys

a, b, *more = sys.argv[1:]
bad = 0


def differ(path, what, x, y):
    global bad
    bad += 1
    if bad <= 20:
        print("%s: %s: %r became %r" % (path, what, x, y))


def content(p):
    with open(p, "rb") as f:
        while True:
            d = f.read(1 << 20)
            yield d
            if not d:
                return


def xattrs(p):
    return {n: os.getxattr(p, n, follow_symlinks=False) for n in os.listxattr(p, follow_symlinks=False)
            if not n.startswith("security.selinux")}


groups = {}
count = 0


def walk(rel):
    global count
    p, q = os.path.join(a, rel), os.path.join(b, rel)
    count += 1
    s = os.lstat(p)
    try:
        t = os.lstat(q)
    except OSError as e:
        return differ(rel, "lstat", "there", e.strerror)
    if stat.S_IFMT(s.st_mode) != stat.S_IFMT(t.st_mode):
        return differ(rel, "type", oct(s.st_mode), oct(t.st_mode))
    if s.st_mode != t.st_mode:
        differ(rel, "mode", oct(s.st_mode), oct(t.st_mode))
    if rel and s.st_mtime_ns != t.st_mtime_ns:          # the two roots were made apart
        differ(rel, "mtime", s.st_mtime_ns, t.st_mtime_ns)
    if "owner" in more and (s.st_uid, s.st_gid) != (t.st_uid, t.st_gid):
        differ(rel, "owner", (s.st_uid, s.st_gid), (t.st_uid, t.st_gid))
    if xattrs(p) != xattrs(q):
        differ(rel, "xattrs", xattrs(p), xattrs(q))
    if stat.S_ISLNK(s.st_mode):
        if os.readlink(p) != os.readlink(q):
            differ(rel, "link", os.readlink(p), os.readlink(q))
    elif stat.S_ISREG(s.st_mode):
        if s.st_nlink > 1:
            g = groups.setdefault((s.st_dev, s.st_ino), (t.st_dev, t.st_ino))
            if g != (t.st_dev, t.st_ino) or t.st_nlink < 2:
                differ(rel, "hard link", g, (t.st_dev, t.st_ino))
        if s.st_size != t.st_size:
            return differ(rel, "size", s.st_size, t.st_size)
        if "sparse" in more and s.st_blocks * 512 < s.st_size // 2 and t.st_blocks * 512 > t.st_size // 2:
            differ(rel, "blocks", s.st_blocks, t.st_blocks)
        if s.st_size <= 1 << 30 and any(x != y for x, y in zip(content(p), content(q))):
            differ(rel, "content", "...", "other")
        elif s.st_size > 1 << 30:
            extents(rel, p, q, s.st_size)
    elif stat.S_ISDIR(s.st_mode):
        x, y = sorted(os.listdir(p)), sorted(n for n in os.listdir(q))
        if x != y:
            differ(rel, "names", sorted(set(x) - set(y))[:5], sorted(set(y) - set(x))[:5])
        for n in x:
            walk(os.path.join(rel, n))
    elif stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode):
        if s.st_rdev != t.st_rdev:
            differ(rel, "device", s.st_rdev, t.st_rdev)


def extents(rel, p, q, size):
    """large sparse files: the data of A's extents, and that B has zeros around their edges"""
    f, g = os.open(p, os.O_RDONLY), os.open(q, os.O_RDONLY)
    o = 0
    while True:
        try:
            o = os.lseek(f, o, os.SEEK_DATA)
        except OSError:
            break
        e = os.lseek(f, o, os.SEEK_HOLE)
        if os.pread(f, e - o, o) != os.pread(g, e - o, o):
            differ(rel, "content at", o, "other")
        z = min(1 << 20, size - e)
        if os.pread(f, z, e) != os.pread(g, z, e):
            differ(rel, "hole after", e, "other")
        o = e
    os.close(f)
    os.close(g)


walk("")
print("%d files compared, %d differences" % (count, bad))
if count < 2:
    sys.exit("nothing to compare below " + a)
sys.exit(1 if bad else 0)
