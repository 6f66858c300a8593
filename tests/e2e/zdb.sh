#!/bin/bash
# A tool that we did not write looks at the pool: Debian's zdb traverses every block of the closed volume, verifies
# every checksum and compares the space maps with what is referenced. Then damage, which it must find (so that the
# test can fail), and which reading through pvol must report and never pass on.
. "$(dirname "$0")/../lib.sh"

SIZE=512M; must new_volume t
must pvol create t/docs
cp -a /usr/include/linux "$T/t/" 2>/dev/null || cp -a /usr/include "$T/t/"
head -c 20000000 /dev/urandom >"$T/t/random"
for i in $(seq 300); do echo "$i" >"$T/t/docs/f$i"; done
must pvol snapshot t@s
rm -rf "$T"/t/docs/f1* "$T"/t/linux/*.h
truncate -s 5M "$T/t/random"
for i in $(seq 300); do mv "$T/t/docs/f$i" "$T/t/docs/g$i" 2>/dev/null; done
python3 - "$T/t" <<'P'
import os, sys
p = sys.argv[1] + "/held"
f = os.open(p, os.O_RDWR | os.O_CREAT, 0o600)
os.write(f, os.urandom(3000000))
os.unlink(p)                            # freed when it is closed
os.setxattr(sys.argv[1] + "/docs", "user.large", b"v" * 30000)
P
must cp "$T/t/random" "$T/random"
must pvol close t

clean() {
    zdb_volume t -bcc >"$T/zdb" 2>&1 || { cat "$T/zdb"; return 1; }
    grep -q 'No leaks' "$T/zdb" || { echo "no word of leaks"; cat "$T/zdb"; return 1; }
    ! grep -Ei 'leaked space|[^0]+ errors?:|got error|checksum error|double free|freeing free' "$T/zdb"
}
check "zdb -bcc: no leak, no error" clean
lists() { zdb_volume t -d >"$T/zdb" 2>&1 && grep -q "t/docs" "$T/zdb" || { cat "$T/zdb"; return 1; }; }
check "zdb lists the datasets" lists
check "the volume opens after zdb" open_volume t
check "the data is intact after zdb" cmp "$T/random" "$T/t/random"
check "zdb of an open volume is refused" fails_with 5 'open|in use|busy' zdb_volume t -bcc
must pvol close t

# Damage: every byte of the middle of the container that is in use, so that some blocks of the file are hit.
c=$(container t)
python3 - "$c" <<'P'
import os, sys
f = os.open(sys.argv[1], os.O_RDWR)
end = os.fstat(f).st_size
o, hit = 24 << 20, 0
while hit < 12 << 20:
    try:
        o = os.lseek(f, o, os.SEEK_DATA)
    except OSError:
        break
    os.pwrite(f, os.urandom(65536), o)
    o += 131072
    hit += 65536
    if o > end - (8 << 20):
        break
P
finds_damage() {
    zdb_volume t -bcc >"$T/zdb" 2>&1
    local rc=$?
    [ $rc != 0 ] || grep -Eqi 'error|cannot|leaked' "$T/zdb"
}
check "zdb finds damage (the test can fail)" finds_damage
no_wrong_data() {
    open_volume t || return 0 # refused: nothing wrong was passed on
    timeout 60 cat "$T/t/random" >"$T/read" 2>"$T/err"
    if cmp -s "$T/random" "$T/read"; then return 0; fi
    # shorter, with an error; and what was read is a part of the file
    grep -qi 'input/output error' "$T/err" && head -c "$(stat -c %s "$T/read")" "$T/random" | cmp - "$T/read"
}
check "reading damaged data is an error, never wrong data" no_wrong_data
