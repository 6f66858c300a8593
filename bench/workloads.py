"""Workloads.  Each takes a context c and returns [(metric, value, unit, ops_or_bytes)].

c.dir    mounted directory          c.file   data file (block peers: the exported image)
c.remount()  down + drop_caches + up: everything cold
c.drop_dentries()                    c.timer() measures one section (wall, cpu, others' cpu)
Sections are limited to c.cap seconds, so a slow peer is cut short, not waited for; every
value is a rate over what was really done.
"""
import json, os, random, shutil, sqlite3, subprocess, time

MiB = 1 << 20
POOL = [random.Random(i).randbytes(MiB) for i in range(16)]      # incompressible, repeatable
QUIET = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def seqwrite(c):
    """sequential write, 1 MiB blocks, then fsync"""
    flags = os.O_WRONLY | os.O_CREAT | (0 if c.block else os.O_TRUNC)
    n = 0
    with c.timer() as t:
        fd = os.open(c.file, flags, 0o644)
        while n < c.size and t.elapsed() < c.cap * 4:
            n += os.write(fd, POOL[n // MiB % 16])
        os.fsync(fd)
        os.close(fd)
    c.written = n
    return [("seqwrite", n / t.wall / MiB, "MiB/s", n, t), ("space", (c.used() - c.used0) / n, "x", 0, None)]


def idle(c):
    """time to open, and resident memory of the peer's processes, right after a cold remount"""
    c.remount()
    os.listdir(os.path.dirname(c.file))
    time.sleep(1)
    return [("open", c.opened, "s", 0, None), ("memory.idle", c.g.memory(), "MiB", 0, None)]


def memory(c):
    """resident memory of the peer's processes after all that went before"""
    return [("memory.busy", c.g.memory(), "MiB", 0, None)]


def seqread(c):
    """sequential read, 1 MiB blocks, cold"""
    m = c.remount()
    buf, n = bytearray(MiB), 0
    with c.timer() as t:
        with open(c.file, "rb", buffering=0) as f:
            while n < c.written and t.elapsed() < c.cap * 4:
                r = f.readinto(buf)
                if not r:
                    break
                n += r
    with open(c.file, "rb", buffering=0) as f:                   # untimed: is it what we wrote?
        for i in range(0, n // MiB, 61):
            f.seek(i * MiB)
            if f.read(MiB) != POOL[i % 16]:
                raise RuntimeError("read back wrong data at MiB %d" % i)
    return [("seqread", n / t.wall / MiB, "MiB/s", n, t), ("remount", m, "s", 0, None)]


def _fio(c, name, rw, jobs, extra):
    size = c.written // jobs // 4096 * 4096
    args = ["fio", "--name=j", "--filename=" + c.file, "--rw=" + rw, "--bs=4k", "--ioengine=psync",
            "--thread", "--numjobs=%d" % jobs, "--size=%d" % size, "--offset_increment=%d" % size,
            "--group_reporting", "--runtime=%d" % c.cap, "--output-format=json",
            "--randrepeat=0", "--fallocate=none"] + extra
    with c.timer() as t:
        out = subprocess.check_output(args, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=c.run)
    j = json.loads(out[out.index(b"{"):])["jobs"][0]["read" if "read" in rw else "write"]
    ops, sec = j["total_ios"], j["runtime"] / 1e3
    return [(name, ops / sec, "op/s", ops, t),
            (name + ".p99", j["clat_ns"]["percentile"]["99.000000"] / 1e3, "us", 0, None)]


def randread1(c):
    """random 4 KiB read, 1 thread, cold cache, each block at most once"""
    c.remount()
    return _fio(c, "randread1", "randread", 1, [])


def randread16(c):
    """random 4 KiB read, 16 threads, cold cache, each block at most once"""
    c.remount()
    return _fio(c, "randread16", "randread", 16, [])


def randwrite1(c):
    """random 4 KiB overwrite, 1 thread, at most 64 MiB, final fsync counted"""
    return _fio(c, "randwrite1", "randwrite", 1, ["--end_fsync=1", "--io_size=64m"])


def randwrite16(c):
    """random 4 KiB overwrite, 16 threads, at most 64 MiB, final fsync counted"""
    return _fio(c, "randwrite16", "randwrite", 16, ["--end_fsync=1", "--io_size=4m"])


def fsync(c):
    """4 KiB append + fsync"""
    p = os.path.join(c.dir, "fsync.log")
    lat, flushes = [], c.flushes()
    with c.timer() as t:
        fd = os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        while t.elapsed() < c.cap:
            a = time.perf_counter()
            os.write(fd, POOL[0][:4096])
            os.fsync(fd)
            lat.append(time.perf_counter() - a)
        os.close(fd)
    flushes = c.flushes() - flushes
    os.unlink(p)
    lat.sort()
    return [("fsync", len(lat) / t.wall, "op/s", len(lat), t),
            ("fsync.flush", flushes / len(lat), "flush/op", 0, None),     # disk cache flushes per fsync: 0 = not durable
            ("fsync.p50", lat[len(lat) // 2] * 1e6, "us", 0, None),
            ("fsync.p99", lat[len(lat) * 99 // 100] * 1e6, "us", 0, None)]


def meta(c):
    """10,000 empty files in one directory: create, stat, readdir, unlink"""
    d = os.path.join(c.dir, "meta")
    os.mkdir(d)
    names, out = [], []
    with c.timer() as t:
        for i in range(c.files):
            p = "%s/file-%06d" % (d, i)
            os.close(os.open(p, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            names.append(p)
            if t.elapsed() > c.cap * 4:
                break
        c.settle(d)
    out.append(("create", len(names) / t.wall, "op/s", len(names), t))
    c.drop_dentries()
    n = 0
    with c.timer() as t:
        for p in names:
            os.stat(p)
            n += 1
            if t.elapsed() > c.cap * 4:
                break
    out.append(("stat", n / t.wall, "op/s", n, t))
    c.drop_dentries()
    with c.timer() as t:
        n = len(os.listdir(d))
    if n != len(names):
        raise RuntimeError("readdir lists %d of %d" % (n, len(names)))
    out.append(("readdir", n / t.wall, "op/s", n, t))
    n = 0
    with c.timer() as t:
        for p in names:
            os.unlink(p)
            n += 1
            if t.elapsed() > c.cap * 4:
                break
        c.settle(d)
    out.append(("unlink", n / t.wall, "op/s", n, t))
    shutil.rmtree(d)
    return out


def tree(c):
    """untar and rm -rf of the source tree"""
    d = os.path.join(c.dir, "tree")
    os.mkdir(d)
    with c.timer() as t:
        subprocess.check_call(["tar", "--no-same-owner", "-xf", c.data + "/tree.tar", "-C", d], **QUIET)
        c.settle(d)
    n = sum(len(f) for _, _, f in os.walk(d))
    if n != c.tree_files:
        raise RuntimeError("untar left %d of %d files" % (n, c.tree_files))
    out = [("untar", n / t.wall, "file/s", n, t)]
    c.drop_dentries()
    with c.timer() as t:
        subprocess.check_call(["rm", "-rf", d], **QUIET)
        c.settle(c.dir)
    return out + [("rm", n / t.wall, "file/s", n, t)]


def git(c):
    """git clone of the same tree, then git status with cold dentries"""
    d = os.path.join(c.dir, "clone")
    env = dict(os.environ, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL="/dev/null")
    with c.timer() as t:
        subprocess.check_call(["git", "clone", "-q", "file://" + c.data + "/tree.git", d],
                              stderr=subprocess.DEVNULL, env=env, **QUIET)
    out = [("clone", c.tree_files / t.wall, "file/s", c.tree_files, t)]
    c.drop_dentries()
    with c.timer() as t:
        s = subprocess.check_output(["git", "-C", d, "status", "--porcelain"], env=env)
    if s:
        raise RuntimeError("clone is dirty: " + s[:80].decode(errors="replace"))
    out.append(("status", c.tree_files / t.wall, "file/s", c.tree_files, t))
    shutil.rmtree(d)
    return out


def _sqlite(c, name, mode):
    p = os.path.join(c.dir, name + ".db")
    db = sqlite3.connect(p, isolation_level=None)
    got = db.execute("pragma journal_mode=" + mode).fetchone()[0]
    db.execute("pragma synchronous=full")
    db.execute("create table t(id integer primary key, v text)")
    n = 0
    with c.timer() as t:
        while n < 500 and t.elapsed() < c.cap * 4:
            db.execute("begin immediate")
            db.execute("insert into t(v) values(?)", ("x" * 100,))
            db.execute("commit")
            n += 1
    ok = db.execute("select count(*) from t").fetchone()[0] == n
    db.close()
    for f in os.listdir(c.dir):
        if f.startswith(name + ".db"):
            os.unlink(os.path.join(c.dir, f))
    if not ok or got != mode:
        raise RuntimeError("%s: journal mode %s, wanted %s" % (name, got, mode))
    return [(name, n / t.wall, "op/s", n, t)]


def sqlite(c):
    """500 one-row transactions, rollback journal, synchronous=full"""
    return _sqlite(c, "sqlite", "delete")


def sqlitewal(c):
    """500 one-row transactions, WAL, synchronous=full"""
    return _sqlite(c, "sqlitewal", "wal")


BLOCK = [seqwrite, seqread, randread1, randread16, randwrite1, randwrite16]
ALL = [seqwrite, idle] + BLOCK[1:] + [fsync, meta, tree, git, sqlite, sqlitewal, memory]
