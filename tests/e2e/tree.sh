#!/bin/bash
# The main job: real trees copied in with tar and cp, the same after closing and opening, with everything that a
# POSIX file system keeps about a file; the same in child datasets below the mounted parent.
. "$(dirname "$0")/../lib.sh"
same() { python3 "$TESTS/e2e/same.py" "$@"; }
owner=${ROOT:+owner}

must python3 "$TESTS/e2e/special.py" "$T/special"
must new_volume t
must pvol create t/docs
check "a child dataset is served below the mounted parent" test -d "$T/t/docs"
check "a child dataset is a file system of its own" \
    test "$(stat -c %d "$T/t/docs" 2>/dev/null)" != "$(stat -c %d "$T/t" 2>/dev/null)" -o -z "$ROOT"

check "cp -a of /usr/include" cp -a /usr/include "$T/t/include"
tar_in() { mkdir -p "$T/t/docs/doc" && tar -C /usr/share/doc --format=posix -cf - . | tar -C "$T/t/docs/doc" -xpf -; }
check "tar of /usr/share/doc into the child" tar_in
check "cp -a of special files" cp -a "$T/special" "$T/t/special"
check "cp -a of special files into the child" cp -a "$T/special" "$T/t/docs/special"

# What this user cannot read in the sources cannot be compared; such files are not in Debian's packages.
verify() {
    check "diff -r of /usr/include $1" diff -r --no-dereference /usr/include "$T/t/include"
    check "diff -r of /usr/share/doc $1" diff -r --no-dereference /usr/share/doc "$T/t/docs/doc"
    check "all attributes of /usr/include $1" same /usr/include "$T/t/include" $owner
    check "all attributes of /usr/share/doc $1" same /usr/share/doc "$T/t/docs/doc" $owner
    check "all attributes of special files $1" same "$T/special" "$T/t/special" $owner ${2:-}
    check "all attributes of special files in the child $1" same "$T/special" "$T/t/docs/special" $owner ${2:-}
}
verify "as written"

check "close" pvol close t
check "nothing is mounted after close" not mounted "$T/t"
check "the mount point is empty after close" test -z "$(ls -A "$T/t")"
check "open" open_volume t
check "the child is served again" test -d "$T/t/docs/doc"
verify "after close and open" sparse

if [ -n "$ROOT" ]; then
    change_owner() { chown 1000:1001 "$T/t/special/size-1" && [ "$(stat -c %u:%g "$T/t/special/size-1")" = 1000:1001 ]; }
    check "root changes an owner" change_owner
else
    give_away() { not chown 0 "$T/t/special/size-1" && chown 0 "$T/t/special/size-1" 2>&1 | grep -q 'not permitted'; }
    check "an ordinary user's chown to others is EPERM" give_away
    check "the root directory belongs to the user" test "$(stat -c %u "$T/t")" = "$(id -u)"
fi
rename_across() { python3 -c '
import errno, os, sys
try:
    os.rename(sys.argv[1], sys.argv[2])
except OSError as e:
    sys.exit(e.errno != errno.EXDEV)
sys.exit("renamed across file systems")' "$T/t/special/size-1" "$T/t/docs/size-1"; }
check "rename into a child dataset is EXDEV" rename_across
check "rm -rf of everything" rm -rf "$T/t/include" "$T/t/special" "$T/t/docs/doc" "$T/t/docs/special"
check "close after removal" pvol close t
