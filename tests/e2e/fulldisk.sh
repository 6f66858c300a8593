#!/bin/bash
# A full disk below the container (a small ext4 on a loop device, so as root): creating leaves nothing half-made;
# writing ends in ENOSPC to the application, never in a suspended pool; reads and deletions go on; when space returns so
# do writes, and nothing that was written is lost. (tests/cli/smalldisk.sh does the like as anybody.)
# root only
. "$(dirname "$0")/../lib.sh"
truncate -s 1200M "$T/disk"
must mkfs.ext4 -q -F -m 0 "$T/disk"
mkdir "$T/small"
must mount -o loop "$T/disk" "$T/small"

# --full reserves everything: it does not fit
check "creating on a full disk" fails_with 1 'space|full' pvol create f --size 4G --full --container "$T/small/f.img" \
    --passphrase-file "$PASS" --at "$T/f" "${CHEAP[@]}"
check "creating on a full disk: nothing half-made" eval '[ ! -e "$T/small/f.img" ] && ! pvol list --json | grep -q "\"f\""'

# What is to return later: the container itself stays as large as it once was.
must fallocate -l 400M "$T/small/ballast"
SIZE=2G
must new_volume t --container "$T/small/c.img"
head -c 5000000 /dev/urandom >"$T/data"
must cp "$T/data" "$T/t/kept"
sync "$T/t/kept"
fill() { # writes until it is refused; the error must be ENOSPC
    timeout 300 python3 - "$T/t" <<'P'
import errno, os, sys
n = 0
try:
    for i in range(3000):
        f = os.open("%s/fill%d" % (sys.argv[1], i), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(f, os.urandom(1 << 20))
        os.fsync(f)
        os.close(f)
        n += 1
except OSError as e:
    print(n, "MiB, then", e.strerror)
    sys.exit(e.errno != errno.ENOSPC)
sys.exit("never refused")
P
}
check "writing to a full disk is ENOSPC" fill
echo "    refused with $(df --output=avail -m "$T/small" | tail -1 | tr -d ' ') MiB left on the disk below"
suspended() { [ "$(status t 's["pool"].get("suspended", False)')" = True ]; }
check "the pool is not suspended" not suspended
check "reading goes on" cmp "$T/data" "$T/t/kept"
avail() { df --output=avail -k "$1" | tail -1; }
shown() {
    echo "$(avail "$T/t") KiB in the volume, $(avail "$T/small") KiB on the disk below"
    [ "$(avail "$T/t")" -le "$(($(avail "$T/small") + 1024))" ]
}
check "statfs tells of the disk below" shown
check "deleting goes on" timeout 60 rm -f "$T"/t/fill[0-9]*
# somebody else takes even the rest, so that writes already accepted are held
head -c 1000000000 /dev/zero >"$T/small/more" 2>/dev/null
timeout 20 python3 -c '
import os, sys
try:
    with open(sys.argv[1], "wb") as f:
        f.write(os.urandom(3000000))
except OSError:
    pass' "$T/t/late"
check "reading goes on with nothing left at all" timeout 60 cmp "$T/data" "$T/t/kept"
rm "$T/small/ballast" "$T/small/more"
goes_on() { cp "$T/data" "$T/t/again" && sync "$T/t/again" && cmp "$T/data" "$T/t/again"; }
check "all goes on when space returns" wait_for 120 goes_on
check "close" timeout 120 "$PVOL" close t
check "open" open_volume t
check "nothing was lost" eval 'cmp "$T/data" "$T/t/kept" && cmp "$T/data" "$T/t/again"'
check "close again" pvol close t
check "zdb finds no leak and no error" eval 'zdb_volume t -bcc >"$T/zdb" 2>&1 && grep -q "No leaks" "$T/zdb" || { cat "$T/zdb"; false; }'
# the keeper lets go of the container a moment after the close
must wait_for 60 umount "$T/small"
