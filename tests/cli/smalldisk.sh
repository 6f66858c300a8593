#!/bin/bash
# tests/cli/smalldisk.sh BUILDDIR: a full disk below the container, as whoever runs it: a small tmpfs in a private
# mount namespace. (fulldisk.sh of e2e does it on ext4, as root.)
# shellcheck disable=SC2154  # variables of lib.sh
if [ "${2:-}" != inside ]; then
    if [ "$(id -u)" = 0 ]; then exec unshare -m --propagation private "$0" "$1" inside; fi
    exec unshare -rm --propagation private "$0" "$1" inside
fi
. "$(dirname "$0")/../lib.sh"

mkdir "$T/small"
must mount -t tmpfs -o size=256M none "$T/small"
must new_volume t --container "$T/small/t.img"
head -c 4000000 /dev/urandom >"$T/data"
must cp "$T/data" "$T/t/kept"
must sync "$T/t/kept"

# creating: the header alone does not fit
head -c 300000000 /dev/zero >"$T/small/ballast" 2>/dev/null
check "create on a full disk" fails_with 1 'space|full' pvol create f --size 128M --container "$T/small/f.img" \
    --passphrase-file "$PASS" --at "$T/f" "${CHEAP[@]}"
nothing_new() { [ ! -e "$T/small/f.img" ] && [ ! -e "$T/f" ] && ! pvol list --json | grep -q '"f"'; }
check "create on a full disk: nothing half-made" nothing_new
rm "$T/small/ballast"

fill() {
    timeout 300 python3 - "$T/t" <<'P'
import errno, os, sys
try:
    for i in range(600):
        f = os.open("%s/fill%d" % (sys.argv[1], i), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(f, os.urandom(1 << 20))
        os.fsync(f)
        os.close(f)
except OSError as e:
    print(i, "MiB, then", e.strerror)
    sys.exit(e.errno != errno.ENOSPC)
sys.exit("never refused")
P
}
check "writing to a full disk is ENOSPC" fill
check "the pool is not suspended" test "$(status t 's["pool"].get("suspended", False)')" = False
check "reading goes on" timeout 60 cmp "$T/data" "$T/t/kept"
deleted() { timeout 60 rm -f "$T"/t/fill*; }
check "deleting goes on" deleted
# what is deleted inside comes back to the disk below, by and by, when it is trimmed; a disk that grows is quicker (the
# options that a user's tmpfs shows cannot be given back in his own namespace)
must mount --options-mode ignore -o remount,size=600M "$T/small"
again() { cp "$T/data" "$T/t/again" && sync "$T/t/again" && cmp "$T/data" "$T/t/again"; }
check "all goes on when space returns" wait_for 120 again
check "close" timeout 120 "$PVOL" close t
check "open" open_volume t
both() { cmp "$T/data" "$T/t/kept" && cmp "$T/data" "$T/t/again"; }
check "nothing was lost" both
check "close again" pvol close t
sound() { zdb_volume t -bcc >"$T/zdb" 2>&1 && grep -q 'No leaks' "$T/zdb" || { tail -30 "$T/zdb"; false; }; }
check "zdb finds no leak and no error" sound
umount -l "$T/small"
