"""Checks of single behaviours of a mounted file system: posix.py CHECK DIRECTORY. Exits 0, or tells what differs."""
import ctypes, errno, fcntl, mmap, os, struct, subprocess, sys, threading

libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
KEEP, PUNCH, ZERO = 1, 2, 16


def rename2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def put(name, data):
    with open(name, "wb") as f:
        f.write(data)


def get(name):
    with open(name, "rb") as f:
        return f.read()


def fails(number, call, *args):
    try:
        call(*args)
    except OSError as e:
        assert e.errno == number, f"{e} instead of {errno.errorcode[number]}"
    else:
        raise AssertionError(f"no {errno.errorcode[number]}")


def rename_flags():
    put("a", b"A")
    put("b", b"B")
    fails(errno.EEXIST, rename2, "a", "b", NOREPLACE)
    rename2("a", "b", EXCHANGE)
    assert get("a") == b"B" and get("b") == b"A"
    rename2("a", "c", NOREPLACE)
    assert get("c") == b"B" and not os.path.exists("a")
    os.rename("b", "c")
    assert get("c") == b"A" and os.stat("c").st_nlink == 1
    os.mkdir("d")
    put("d/x", b"")
    os.mkdir("e")
    fails(errno.ENOTEMPTY, os.rename, "e", "d")
    fails(errno.EINVAL, os.rename, "d", "d/y")
    os.rename("d", "e")
    assert os.listdir("e") == ["x"]


def unlinked_open():
    f = open("gone", "w+b")
    f.write(b"x" * 300000)
    f.flush()
    os.unlink("gone")
    f.write(b"y" * 10)
    f.flush()
    os.fsync(f.fileno())
    f.seek(0)
    assert f.read() == b"x" * 300000 + b"y" * 10
    assert os.fstat(f.fileno()).st_nlink == 0
    # rename over an open file
    put("new", b"new")
    g = open("new", "rb")
    put("newer", b"newer")
    os.rename("newer", "new")
    assert g.read() == b"new" and get("new") == b"newer"


def mapped():
    put("m", b"\0" * 100000)
    with open("m", "r+b") as f:
        m = mmap.mmap(f.fileno(), 0)
        m[5000:5005] = b"hello"
        m[99999:100000] = b"!"
        m.flush()
        m.close()
    data = get("m")
    assert data[5000:5005] == b"hello" and data[-1:] == b"!"
    assert len(data) == 100000


def xattrs():
    put("x", b"")
    os.setxattr("x", "user.a", b"1")
    os.setxattr("x", "user.big", b"z" * 3000)
    assert os.getxattr("x", "user.a") == b"1" and os.getxattr("x", "user.big") == b"z" * 3000
    assert sorted(os.listxattr("x")) == ["user.a", "user.big"]
    fails(errno.EEXIST, os.setxattr, "x", "user.a", b"2", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, "x", "user.b", b"2", os.XATTR_REPLACE)
    os.setxattr("x", "user.a", b"22", os.XATTR_REPLACE)
    assert os.getxattr("x", "user.a") == b"22"
    os.removexattr("x", "user.a")
    fails(errno.ENODATA, os.getxattr, "x", "user.a")
    os.mkdir("xd")
    os.setxattr("xd", "user.d", b"dir")
    assert os.getxattr("xd", "user.d") == b"dir"


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


def acls():
    """ACLs show in the mode at once, and a default ACL is inherited in place of the umask."""
    access, default, nobody = "system.posix_acl_access", "system.posix_acl_default", 2**32 - 1
    put("acl", b"")
    os.chmod("acl", 0o640)
    assert os.stat("acl").st_mode & 0o777 == 0o640
    os.setxattr("acl", access, acl((1, 6, nobody), (2, 6, 1234), (4, 0, nobody), (16, 6, nobody), (32, 0, nobody)))
    assert os.stat("acl").st_mode & 0o777 == 0o660
    os.chmod("acl", 0o644)
    assert os.getxattr("acl", access) == acl(
        (1, 6, nobody), (2, 6, 1234), (4, 0, nobody), (16, 4, nobody), (32, 4, nobody))
    os.mkdir("acl.d")
    inherited = acl((1, 7, nobody), (2, 7, 1234), (4, 5, nobody), (16, 7, nobody), (32, 5, nobody))
    os.setxattr("acl.d", default, inherited)
    os.umask(0o077)
    put("acl.d/file", b"")
    os.mkdir("acl.d/sub")
    os.mkfifo("acl.d/fifo")
    assert os.stat("acl.d/file").st_mode & 0o777 == os.stat("acl.d/fifo").st_mode & 0o777 == 0o664
    assert os.getxattr("acl.d/file", access) == acl(
        (1, 6, nobody), (2, 7, 1234), (4, 5, nobody), (16, 6, nobody), (32, 4, nobody))
    assert os.stat("acl.d/sub").st_mode & 0o777 == 0o775
    assert os.getxattr("acl.d/sub", default) == os.getxattr("acl.d/sub", access) == inherited
    os.removexattr("acl.d", default)
    put("acl.d/later", b"")
    assert os.stat("acl.d/later").st_mode & 0o777 == 0o600


def capability():
    """A write drops a file's capability, but not when it is written back after one was set."""
    if os.geteuid() != 0:
        return
    value = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    with open("cap", "w+b", buffering=0) as f:
        f.write(b"x" * 100000)
        os.setxattr(f.fileno(), "security.capability", value)
        os.fsync(f.fileno())
        assert os.getxattr("cap", "security.capability") == value
        f.write(b"y")
        fails(errno.ENODATA, os.getxattr, "cap", "security.capability")


def extremes():
    """The last byte that a file can have, times before 1970, the largest owner."""
    last = 2**63 - 2
    with open("far", "w+b", buffering=0) as f:
        f.write(b"a" * 700)
        os.fsync(f.fileno())
        os.pwrite(f.fileno(), b"z", last)
        os.fsync(f.fileno())
        assert os.fstat(f.fileno()).st_size == last + 1
        assert os.pread(f.fileno(), 1, last) == b"z" and os.pread(f.fileno(), 2, 699) == b"a\0"
        fallocate(f.fileno(), PUNCH | KEEP, 4096, last - 4096)
        os.ftruncate(f.fileno(), 5)
        os.ftruncate(f.fileno(), last + 1)
        assert os.pread(f.fileno(), 10, 0) == b"aaaaa" + bytes(5)
    os.unlink("far")
    put("early", b"")
    os.utime("early", ns=(-(10**18), -1))
    assert os.stat("early").st_atime_ns == -(10**18) and os.stat("early").st_mtime_ns == -1
    if os.geteuid() == 0:
        os.chown("early", 2**32 - 2, 2**32 - 2)
        assert os.stat("early").st_uid == os.stat("early").st_gid == 2**32 - 2


def holes():
    size = 8 << 20
    with open("h", "w+b", buffering=0) as f:
        f.write(os.urandom(size))
        os.fsync(f.fileno())
        fallocate(f.fileno(), PUNCH | KEEP, 1 << 20, 4 << 20)
        os.fsync(f.fileno())
        assert os.pread(f.fileno(), 4 << 20, 1 << 20) == b"\0" * (4 << 20)
        assert os.lseek(f.fileno(), 0, os.SEEK_HOLE) == 1 << 20
        assert os.lseek(f.fileno(), 1 << 20, os.SEEK_DATA) == 5 << 20
        fails(errno.ENXIO, os.lseek, f.fileno(), size, os.SEEK_DATA)
        fallocate(f.fileno(), ZERO, 6 << 20, 100)
        assert os.pread(f.fileno(), 100, 6 << 20) == b"\0" * 100
        fallocate(f.fileno(), 0, size, 4096)
        assert os.fstat(f.fileno()).st_size == size + 4096
        fallocate(f.fileno(), KEEP, size + 4096, 4096)
        assert os.fstat(f.fileno()).st_size == size + 4096


def seek_unwritten():
    """Data that the kernel has not written back yet is data, not a hole."""
    with open("s", "w+b", buffering=0) as f:
        os.ftruncate(f.fileno(), 4 << 20)
        os.pwrite(f.fileno(), b"data", 2 << 20)
        assert os.lseek(f.fileno(), 0, os.SEEK_DATA) <= 2 << 20
        os.pwrite(f.fileno(), b"tail", 6 << 20)
        assert os.lseek(f.fileno(), (4 << 20) + 1, os.SEEK_DATA) <= 6 << 20
        assert os.pread(f.fileno(), 4, 6 << 20) == b"tail"


def append_truncate():
    fds = [os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) for _ in range(4)]
    for i in range(400):
        os.write(fds[i % 4], b"%07d\n" % i)
    for fd in fds:
        os.close(fd)
    assert get("log") == b"".join(b"%07d\n" % i for i in range(400))
    with open("log", "wb") as f:
        f.write(b"short")
    assert get("log") == b"short"
    os.truncate("log", 100000)
    assert get("log") == b"short" + b"\0" * 99995
    os.truncate("log", 3)
    os.truncate("log", 10)
    assert get("log") == b"sho" + b"\0" * 7


def direct_io():
    fd = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    block = mmap.mmap(-1, 1 << 20)
    block[:] = os.urandom(1 << 20)
    assert os.write(fd, block) == 1 << 20
    back = mmap.mmap(-1, 1 << 20)
    assert os.preadv(fd, [back], 0) == 1 << 20
    assert back[:] == block[:] and get("direct") == block[:]


def times_modes():
    put("t", b"x")
    os.utime("t", ns=(1234567890123456789, 1987654321987654321))
    st = os.stat("t")
    assert (st.st_atime_ns, st.st_mtime_ns) == (1234567890123456789, 1987654321987654321), st
    os.chmod("t", 0o4751)
    assert os.stat("t").st_mode & 0o7777 == 0o4751
    with open("t", "ab") as f:
        f.write(b"y")
    mode = os.stat("t").st_mode & 0o7777
    assert mode == (0o4751 if os.geteuid() == 0 else 0o751), oct(mode)
    os.umask(0o027)
    os.mkdir("td")
    assert os.stat("td").st_mode & 0o7777 == 0o750
    assert os.stat(".").st_nlink >= 3
    before = os.stat(".").st_mtime_ns
    put("t2", b"")
    assert os.stat(".").st_mtime_ns > before
    if os.geteuid() == 0:
        os.chmod("t", 0o6755)
        os.chown("t", 12, 34)
        st = os.stat("t")
        assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (12, 34, 0o755), st
    else:
        fails(errno.EPERM, os.chown, "t", 0, 0)


def names():
    fails(errno.ENAMETOOLONG, put, "n" * 256, b"")
    put("n" * 255, b"")
    put("n\xe4 \n'\"\\", b"odd")
    os.symlink("t" * 4000, "sl")
    assert os.readlink("sl") == "t" * 4000
    fails(errno.ELOOP, os.open, "sl", os.O_RDONLY | os.O_NOFOLLOW)
    os.mkfifo("ff")
    fails(errno.EEXIST, os.mkdir, "ff")
    fails(errno.ENOTDIR, os.mkdir, "ff/x")
    fails(errno.ENOENT, open, "missing/x", "wb")
    fails(errno.EISDIR, os.unlink, "nd") if os.path.isdir("nd") else os.mkdir("nd")
    fails(errno.EISDIR, os.unlink, "nd")
    fails(errno.ENOTDIR, os.rmdir, "ff")


def many_names():
    os.mkdir("many")
    for i in range(3000):
        os.mknod(f"many/{i:05d}-{'x' * (i % 90)}")
    seen = os.listdir("many")
    assert len(seen) == len(set(seen)) == 3000
    # removing while reading loses and repeats nothing
    n = 0
    with os.scandir("many") as entries:
        for entry in entries:
            if int(entry.name[:5]) % 2:
                os.unlink(f"many/{entry.name}")
            n += 1
    assert n == 3000, n
    assert len(os.listdir("many")) == 1500
    assert all(int(e[:5]) % 2 == 0 for e in os.listdir("many"))


def parallel():
    errors = []

    def work(k):
        try:
            for i in range(60):
                name = f"p{k}-{i}"
                put(name, name.encode() * 50)
                os.rename(name, f"q{k}-{i}")
                assert get(f"q{k}-{i}") == name.encode() * 50
                if i % 3 == 0:
                    os.unlink(f"q{k}-{i}")
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors, errors[0]
    assert len([n for n in os.listdir(".") if n.startswith("q")]) == 20 * 40


def locks():
    put("l", b"")
    with open("l", "r+b") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with open("l", "r+b") as g:
            fails(errno.EAGAIN, fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(f, fcntl.LOCK_EX)


def sqlite():
    import sqlite3
    for mode in ("delete", "wal"):
        db = sqlite3.connect(f"{mode}.db")
        assert db.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        db.execute("create table t(a integer primary key, b blob)")
        for i in range(20):
            with db:
                db.executemany("insert into t(b) values(?)", [(os.urandom(200),) for _ in range(20)])
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        db.close()


if __name__ == "__main__":
    os.mkdir(f"{sys.argv[2]}/{sys.argv[1]}")
    os.chdir(f"{sys.argv[2]}/{sys.argv[1]}")
    globals()[sys.argv[1]]()
