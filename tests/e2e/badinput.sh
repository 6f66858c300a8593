#!/bin/bash
# Bad input gets a clear error and loses nothing: each case asserts the message, the exit code, and that the volume and
# its data are as before.
. "$(dirname "$0")/../lib.sh"

must new_volume t
head -c 2000000 /dev/urandom >"$T/data"
must cp "$T/data" "$T/t/data"
c=$(container t)
intact() { # the volume opens with its passphrase, holds its data, closes
    mounted "$T/t" || open_volume t || return 1
    cmp "$T/data" "$T/t/data" && pvol close t
}
nothing_new() { # NAME: neither known, nor a container, nor a mount
    ! pvol list --json | grep -q "\"$1\"" && [ ! -e "$T/$1.img" ] && ! mounted "$T/$1" &&
        [ -z "$(find "$PVOL_HOME" -name "$1.*" 2>/dev/null)" ]
}
create() { # create NAME OPTION...
    local name=$1
    shift
    pvol create "$name" --size 256M --passphrase-file "$PASS" --at "$T/$name" "${CHEAP[@]}" "$@"
}

# ---- names and keys ----
check "a name that exists" fails_with 1 'exists' create t
check "a bad name" fails_with '1|2' 'name' create 'a b/c*'
check "a name with .." fails_with '1|2' 'name' create ..
check "no such volume" fails_with 4 'no (such )?volume|not known|no volume' pvol open nothing --passphrase-file "$PASS"
check "an option that is not there" fails_with 2 'unknown option' pvol open t --nonsense
check "an empty passphrase file" eval ': >"$T/empty"; fails_with "1|2|3" "empty" pvol create e --size 256M --passphrase-file "$T/empty" --at "$T/e" "${CHEAP[@]}"'
check "an empty passphrase file: nothing half-made" nothing_new e
must pvol close t
check "a passphrase file that is not there" fails_with '1|2' 'No such file' pvol open t --passphrase-file "$T/absent"
check "the wrong passphrase" fails_with 3 'passphrase|key' pvol open t --passphrase-file "$WRONG"
check "the wrong passphrase: nothing is mounted, nothing lost" intact
check "close of a closed volume" fails_with '1|4|5|0' '' pvol close t

# ---- mount points ----
mkdir "$T/full"
echo mine >"$T/full/file"
check "a mount point that is not empty" fails_with '1|5' 'not empty' pvol open t --passphrase-file "$PASS" --at "$T/full"
check "a mount point that is not empty: its file is there" grep -qx mine "$T/full/file"
check "create at a mount point that is not empty" fails_with '1|5' 'not empty' create n --at "$T/full"
check "create at a mount point that is not empty: nothing half-made" nothing_new n
check "a mount point that is a file" fails_with 1 'not a directory' pvol open t --passphrase-file "$PASS" --at "$T/data"
if [ -z "$ROOT" ]; then
    check "a mount point that is not ours" fails_with 1 'not (yours|ours|owned)|belongs|permission|owner' pvol open t --passphrase-file "$PASS" --at /mnt
fi
check "after bad mount points" intact

# ---- containers ----
mkdir "$T/dir.img"
check "a container that is a directory" fails_with 1 'directory' create d --container "$T/dir.img"
check "open of a directory" fails_with '1|6' 'directory' pvol open "$T/dir.img" --passphrase-file "$PASS" --at "$T/d"
check "a size that is too small" fails_with '1|2' 'small|at least' create s --size 1M --container "$T/s.img"
check "a size that is too small: nothing half-made" nothing_new s
echo precious >"$T/precious"
check "a container file that exists already" fails_with 1 'exists' create p --container "$T/precious"
check "a container file that exists already: untouched" grep -qx precious "$T/precious"
head -c 5000000 /dev/urandom >"$T/noise"
check "not a volume at all" fails_with 6 'not a volume' pvol open "$T/noise" --passphrase-file "$PASS" --at "$T/x"
: >"$T/nil"
check "an empty file" fails_with 6 'not a volume|too small|empty' pvol open "$T/nil" --passphrase-file "$PASS" --at "$T/x"
check "a container that is not there" fails_with '1|4' 'No such file|not there|missing|no such volume' pvol open "$T/absent.img" --passphrase-file "$PASS" --at "$T/x"
cp --sparse=always "$c" "$T/short.img"
truncate -s 20M "$T/short.img"
check "a truncated container" fails_with '1|6' 'truncated|short|smaller|damaged|pool' pvol open "$T/short.img" --passphrase-file "$PASS" --at "$T/x"
cp "$c" "$T/short.img"
truncate -s 10000 "$T/short.img"
check "a container truncated within its header" fails_with '1|6' '' pvol open "$T/short.img" --passphrase-file "$PASS" --at "$T/x"
rm -f "$T/short.img"
check "after bad containers" intact

mv "$c" "$c.away"
check "the container is gone" fails_with '1|4' 'No such file|missing|not there' open_volume t
missing() { pvol list --json | grep -q missing; }
check "the list says missing" missing
mv "$c.away" "$c"
check "the container is back" intact

if [ -z "$ROOT" ]; then
    chmod 400 "$c"
    check "a read-only container" fails_with 1 'permission|read-only|writ' open_volume t
    chmod 600 "$c"
    check "after a read-only container" intact
fi

# in use: somebody else holds the lock that pvol takes
python3 - "$c" "$T/locked" <<'P' &
import fcntl, os, struct, sys, time
f = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))     # F_OFD_SETLK
open(sys.argv[2], "w").close()
time.sleep(300)
P
locker=$!
wait_for 20 test -e "$T/locked"
check "a container in use by another process" fails_with 5 'in use|use by|busy|locked' open_volume t
kill $locker
wait $locker 2>/dev/null
check "when the other process is gone" intact
check "a second home cannot open an open container" eval '
    open_volume t &&
    fails_with 5 "in use|use by|busy|locked|open" env PVOL_HOME="$T/home2" PVOL_RUNTIME="$T/run2" "$PVOL" open "$c" --passphrase-file "$PASS" --at "$T/x"'
env PVOL_HOME="$T/home2" PVOL_RUNTIME="$T/run2" "$PVOL" close --all </dev/null >/dev/null 2>&1
check "and loses nothing" intact

# ---- two at once ----
twice() {
    local a b
    open_volume t >"$T/o1" 2>&1 &
    a=$!
    open_volume t >"$T/o2" 2>&1 &
    b=$!
    wait $a
    a=$?
    wait $b
    b=$?
    cat "$T/o1" "$T/o2"
    # one opens it; the other finds it open, or is told so
    [ $a = 0 ] || [ $b = 0 ] || return 1
    [ $a = 0 ] || [ $a = 5 ] || return 1
    [ $b = 0 ] || [ $b = 5 ] || return 1
    [ "$(grep -c " $T/t " /proc/self/mountinfo)" = 1 ]
}
check "two opens at once" twice
check "two opens at once: nothing lost" intact

# ---- close while in use ----
must open_volume t
(cd "$T/t" && exec sleep 300) &
holder=$!
exec 8<"$T/t/data"
sleep 0.2
names_holders() { fails_with 5 "$holder|sleep" pvol close t && grep -q "$$\|bash" "$T/stderr"; }
check "close while files are open names the processes" names_holders
check "close while files are open: all goes on" cmp "$T/data" "$T/t/data"
exec 8<&-
kill $holder
wait $holder 2>/dev/null
check "close afterwards" intact

# ---- header damage ----
flip() { # flip OFFSET...: 64 bytes each
    python3 - "$c" "$@" <<'P'
import os, sys
f = os.open(sys.argv[1], os.O_RDWR)
for o in map(int, sys.argv[2:]):
    b = os.pread(f, 64, o)
    os.pwrite(f, bytes(x ^ 0x5a for x in b), o)
P
}
cp --sparse=always "$c" "$T/good.img"
second=$(python3 -c '
import struct, sys
print(struct.unpack(">Q", open(sys.argv[1], "rb").read(16)[8:])[0])' "$c")
copies() { pvol info "$c" --json | python3 -c '
import json, sys
i = json.load(sys.stdin)
c = i.get("info", i)["copies"]
print(c["primary"], c["secondary"])'; }
flip 4200
check "the first header copy is damaged: info says so" test "$(copies)" = "damaged ok"
check "the first header copy is damaged: it opens" open_volume t
check "the first header copy is damaged: data" intact
check "the first header copy is repaired" test "$(copies)" = "ok ok"
flip $((second + 100))
check "the second header copy is damaged: info says so" test "$(copies)" = "ok damaged"
check "the second header copy is damaged: data" intact
check "the second header copy is repaired" test "$(copies)" = "ok ok"
pvol close t >/dev/null 2>&1
flip 4200 $((second + 4200))
check "both header copies are damaged" fails_with 6 'damaged|header' open_volume t
check "both header copies are damaged: info" fails_with 6 'damaged|header' pvol info "$c"
cp --sparse=always "$T/good.img" "$c"
check "with the header put back" intact
check "header backup" pvol header backup t "$T/header"
flip 0 4200 "$second" $((second + 4200))
check "header restore" pvol header restore t "$T/header"
check "after header restore" intact
check "header restore of nonsense is refused" fails_with '1|6' '' pvol header restore t "$T/noise"
check "after a refused restore" intact

# ---- the last slot, erase ----
check "the last key slot is not removed" fails_with 5 'last|only' pvol key remove t --slot 0 --passphrase-file "$PASS"
check "after that" intact

# ---- a recovery key that nobody could read ----
unread() { pvol create unread --size 128M --passphrase-file "$PASS" --at "$T/unread" --pbkdf pbkdf2 --iter-time 1 >/dev/full; }
check "a recovery key that could not be shown is told" fails_with 1 'recovery key could not be shown' unread
check "with the way to another one" grep -q 'key add unread --new-key recovery' "$T/stderr"
check "which works" eval 'pvol key add unread --passphrase-file "$PASS" --new-key recovery | grep -Eq "([b-v]{8}-){7}[b-v]{8}"'
pvol close unread >/dev/null 2>&1

# ---- the machine ----
small_lock() { # no room for locked memory: refused, with the reason, and nothing half-made (memfd_secret needs it too)
    (ulimit -l 0 && env PVOL_HOME="$T/home3" PVOL_RUNTIME="$T/run3" "$PVOL" create l --size 256M --container "$T/l.img" \
        --passphrase-file "$PASS" --at "$T/l" "${CHEAP[@]}" </dev/null)
}
if [ -z "$ROOT" ]; then
    check "no room under the memory-lock limit" fails_with 1 'lock' small_lock
    check "no room under the memory-lock limit: nothing half-made" nothing_new l
fi

# the runtime directory vanishes: the keeper closes everything in order and ends
must open_volume t
keeper=$(keeper_pid)
check "the keeper listens" test -n "$keeper"
rm -rf "$PVOL_RUNTIME"
check "the runtime directory vanishes: the keeper ends" wait_for 90 not kill -0 "$keeper"
check "the runtime directory vanishes: nothing stays mounted" wait_for 30 not mounted "$T/t"
check "the runtime directory vanishes: nothing is lost" intact

doctor() { pvol doctor --json >"$T/doctor.json"; python3 -c '
import json, sys
json.load(open(sys.argv[1]))' "$T/doctor.json"; }
check "doctor --json is JSON" doctor
