#!/usr/bin/env python3
"""special.py DIR: makes a tree of what copying programs get wrong: modes, times before 1970 and to the nanosecond,
odd names, links of both kinds, holes, extended attributes; as root owners, devices and security attributes too."""
import os, random, sys

d = sys.argv[1]
root = os.getuid() == 0
os.makedirs(d)


def put(name, data=b"", mode=0o644):
    p = os.path.join(d, name)
    with open(p, "wb") as f:
        f.write(data)
    os.chmod(p, mode)
    return p


def noise(n, seed):
    return random.Random(seed).randbytes(n)


for n in (0, 1, 511, 512, 513, 4095, 4096, 4097, 131071, 131072, 131073, 1000003):
    put("size-%d" % n, noise(n, n))
for m in (0o400, 0o444, 0o600, 0o640, 0o755, 0o777, 0o4755, 0o2755, 0o1777, 0o000 if root else 0o440):
    put("mode-%04o" % m, b"x", m)
for m in (0o700, 0o755, 0o1777, 0o2770):
    p = os.path.join(d, "dir-%04o" % m)
    os.mkdir(p)
    os.chmod(p, m)
put("n" * 255, b"long name")
put("\u00e4\u00f6\u65e5\u672c", b"utf-8")
put("with space\nnewline\ttab", b"odd")
with open(os.path.join(os.fsencode(d), b"not-utf8-\xff\xfe"), "wb") as f:
    f.write(b"bytes")
put(".hidden")
put("-rf")
os.symlink("size-1", d + "/link-relative")
os.symlink("/nonexistent/" + "x" * 900, d + "/link-dangling")
os.symlink("y" * 4095, d + "/link-longest")
os.symlink(".", d + "/link-loop")
put("hard1", noise(10000, "h"))
for i in range(2, 6):
    os.link(d + "/hard1", d + "/hard%d" % i)
os.mkdir(d + "/sub")
os.link(d + "/hard1", d + "/sub/hard6")
deep = d + "/sub"
for i in range(40):
    deep += "/level%d" % i
    os.mkdir(deep)
with open(deep + "/bottom", "w") as f:
    f.write("deep\n")
with open(d + "/sparse", "wb") as f:
    f.write(b"head")
    f.seek(40 << 20)
    f.write(noise(5000, "s"))
    f.seek(3 << 30)
    f.write(b"middle")
    f.truncate(4 << 30)
with open(d + "/only-hole", "wb") as f:
    f.truncate(8 << 20)
os.mkfifo(d + "/fifo", 0o620)
os.mkdir(d + "/many")
for i in range(2000):
    with open(d + "/many/entry-%05d" % i, "w") as f:
        f.write("%d\n" % i)
p = put("xattrs", b"with attributes")
try:
    os.setxattr(p, "user.small", b"value")
    os.setxattr(p, "user.binary", bytes(range(256)))
    os.setxattr(p, "user.empty", b"")
    os.setxattr(p, "user.larger", noise(2000, "x"))
    os.setxattr(d + "/sub", "user.of-a-directory", b"1")
except OSError as e:
    print("no user attributes on this file system:", e.strerror)
if root:
    os.chown(put("owned", b"x"), 1234, 5678)
    os.chown(put("owned-large", b"x"), 2000000000, 1999999999)
    os.lchown(d + "/link-relative", 77, 88)
    os.mknod(d + "/char", 0o020640, os.makedev(1, 3))
    os.mknod(d + "/block", 0o060640, os.makedev(7, 200))
    os.setxattr(p, "trusted.t", b"\x00\x01")
for name, ns in (("size-0", 1234567890123456789), ("size-1", 1), ("size-511", -10**18), ("size-512", 4102444800 * 10**9 + 7),
                 ("dir-0700", 987654321987654321)):
    os.utime(os.path.join(d, name), ns=(ns, ns))
os.utime(d + "/link-dangling", ns=(5, 1111111111222222222), follow_symlinks=False)
