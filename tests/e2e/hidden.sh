#!/bin/bash
# Nothing that is inside a volume shows outside: no dataset, snapshot, file or attribute name and no content in the
# container, in PVOL_HOME, in the runtime directory or in the logs, neither while open nor afterwards; no passphrase in
# any process's arguments or environment. With a positive control: the same search finds the same words in a plain copy.
. "$(dirname "$0")/../lib.sh"
words=(zqxdataset zqxsnapshot zqxfilename zqxdirectory zqxcontent zqxattribute zqxlinktarget)
printf 'zqxpassphrase-%s' "$RANDOM" >"$PASS"
printf '%s\n' "${words[@]}" zqxpassphrase >"$T/words"
SIZE=256M

search() { # search DIR...: prints where a word is found, in contents or names
    grep -r -a -o -D skip -F -f "$T/words" "$@" 2>/dev/null | sort | uniq -c
    find "$@" -name '*zqx*' -printf 'named: %p\n' 2>/dev/null
}

must new_volume t
must pvol create t/zqxdataset
fill() { # fill DIR
    mkdir -p "$1/zqxdirectory"
    for i in $(seq 50); do
        for j in $(seq 100); do echo "line $j of zqxcontent"; done >"$1/zqxdirectory/zqxfilename-$i"
    done
    head -c 1000000 /dev/urandom | base64 | sed 's/$/zqxcontent/' >"$1/zqxfilename-incompressible"
    ln -s zqxlinktarget "$1/link"
    setfattr -n user.zqxattribute -v zqxcontent "$1/zqxfilename-incompressible"
    sync -f "$1" 2>/dev/null || sync "$1/zqxfilename-incompressible"
}
fill "$T/t/zqxdataset"
fill "$T/t"
must pvol snapshot t@zqxsnapshot
must pvol snapshot t/zqxdataset@zqxsnapshot
rm "$T/t/zqxdirectory/zqxfilename-7"
cat "$T/t/.zfs/snapshot/zqxsnapshot/zqxdirectory/zqxfilename-7" >/dev/null
ls "$T/t/zqxdirectory/zqxfilename-absent" 2>/dev/null
# errors that name things must not leave a trace either
pvol snapshot t@zqxsnapshot 2>/dev/null
pvol rollback t/zqxdataset@zqxsnapshot-absent 2>/dev/null
pvol status t >/dev/null
c=$(container t)

mkdir "$T/control"
fill "$T/control"
finds() { [ "$(search "$T/control" | grep -c -e zqxcontent -e zqxfilename -e zqxdirectory)" -ge 5 ]; }
check "the search finds the words in a plain copy" finds
rm -rf "$T/control"

nothing() {
    local found
    found=$(search "$c" "$PVOL_HOME" "$PVOL_RUNTIME" "$HOME" 2>/dev/null)
    [ -z "$found" ] || { echo "$found" | head -20; return 1; }
}
check "nothing shows while the volume is open" nothing
if [ -n "$ROOT" ]; then
    arguments() {
        local p found=0
        for p in $(keeper_pid) $(engine_pid t); do
            if tr '\0' '\n' <"/proc/$p/cmdline" | grep -q zqx; then echo "arguments of $p"; found=1; fi
            if tr '\0' '\n' <"/proc/$p/environ" | grep -q zqx; then echo "environment of $p"; found=1; fi
        done
        return $found
    }
    check "no name and no passphrase in arguments or environment" arguments
fi
must pvol close t
check "nothing shows after close" nothing
lists() { zdb_volume t -d >"$T/zdb" 2>&1 && grep -q zqxdataset "$T/zdb" || { cat "$T/zdb"; return 1; }; }
check "zdb finds the dataset inside" lists
rm -f "$T/zdb"
check "nothing shows after zdb" nothing
check "no temporary files are left in /tmp" \
    test -z "$(find /tmp /var/tmp -maxdepth 2 -newer "$PASS" -user "$(id -u)" -iname '*zqx*' 2>/dev/null)"
must open_volume t
check "the names are there again when it is open" test -e "$T/t/zqxdataset/zqxdirectory/zqxfilename-9"
must pvol close t

# The container is as good as random: it does not compress, and its used parts show no repeated 4 KiB block.
random() {
    python3 - "$c" <<'P'
import os, sys, zlib
f = os.open(sys.argv[1], os.O_RDONLY)
end, o, seen, n, raw, packed = os.fstat(f).st_size, 16 << 20, set(), 0, 0, 0
while o < end:
    try:
        o = os.lseek(f, o, os.SEEK_DATA)
    except OSError:
        break
    b = os.pread(f, 4096, o)
    if b.strip(b"\0"):
        n += 1
        raw += len(b)
        packed += len(zlib.compress(b, 1))
        if b in seen:
            sys.exit("a block of ciphertext occurs twice, at %d" % o)
        seen.add(b)
    o += 4096
print(n, "blocks", raw, packed)
sys.exit(not (n > 100 and packed > raw * 0.99))
P
}
check "the ciphertext neither compresses nor repeats" random
