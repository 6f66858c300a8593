#!/bin/bash
# Supervision beyond single kills (tests/e2e/kills.sh): an engine that dies again and again, one that cannot import,
# the keeper's orderly end, hostile clients, the lock on a container, unmounting by hand.
. "$(dirname "$0")/../lib.sh"
here=$TESTS/daemon
ctl() { timeout 120 python3 "$here/pvctl.py" "$@"; }
state() { pvol list --json | python3 -c '
import json, sys
print([v["state"] for v in json.load(sys.stdin)["volumes"] if v["name"] == sys.argv[1]][0])' "$1"; }
in_state() { [ "$(state "$1")" = "$2" ]; }
served() { mounted "$T/$1" && timeout 20 ls "$T/$1" >/dev/null; }
other_engine() { local p; p=$(engine_pid "$1") && [ "$p" != "$2" ] && served "$1"; }

must new_volume t --size 256M
head -c 1000000 /dev/urandom >"$T/data"
must cp "$T/data" "$T/t/data"
sync -f "$T/t/data"

# ---- what the protocol refuses ----
hostile() { # sends its standard input raw; the keeper may answer or hang up, but must go on
    python3 -c '
import os, socket, sys
os.chdir(os.environ["PVOL_RUNTIME"])
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect("control")
try:
    s.sendall(sys.stdin.buffer.read())
    s.shutdown(socket.SHUT_WR)
    while s.recv(65536):
        pass
except (BrokenPipeError, ConnectionResetError):
    pass'
}
hello='{"hello":{"protocol":1,"version":"t"}}'
check "a client of another protocol version is turned away" eval 'echo "{\"hello\":{\"protocol\":99}}" | hostile'
check "not JSON" eval 'printf "%s\n\377\376 nonsense\n" "$hello" | hostile'
check "deep nesting" eval '(echo "$hello"; head -c 100000 /dev/zero | tr "\0" "["; echo) | hostile'
check "a line without an end" eval '(echo "$hello"; head -c 3000000 /dev/zero | tr "\0" "x") | hostile'
check "an unknown method" fails_with 1 'no method' ctl no.such
check "parameters of wrong types" fails_with 2 'parameter' ctl volume.status '{"name":[1]}'
check "a name that is a path" fails_with '2|4' '' ctl volume.status '{"name":"../t"}'
check "more keys announced than sent" fails_with 2 'keys' ctl volume.create '{"name":"x","keys":[{"kind":"passphrase"}]}'
check "a mirror that is no absolute path" fails_with 2 'absolute' \
    ctl volume.create '{"name":"x","mirror":"rel","keys":[{"kind":"passphrase"}]}' --key abc
cat >"$T/rude.py" <<'P'
"""Clients that stall: what the others get meanwhile."""
import os, sys, time
sys.path.insert(0, sys.argv[1])
import pvctl


def endless_key():  # a pipe that its writer does not close
    stalled, (reader, writer) = pvctl.Channel(), os.pipe()
    stalled.socket.settimeout(60)
    stalled.begin("key.test", {"name": "t"}, fds=[reader])
    message = stalled.receive()["error"]["message"]
    os.close(writer)
    return "not closed" in message


def device_key():  # something that could block for ever
    zero = os.open("/dev/zero", os.O_RDONLY)
    return "pipe or a file" in pvctl.Channel().call("key.test", {"name": "t"}, fds=[zero])["error"]["message"]


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def never_reads():
    other = pvctl.Channel()
    pid = other.call("keeper.status")["result"]["pid"]
    before = threads(pid)
    stalled = pvctl.Channel()
    stalled.socket.settimeout(2)
    try:
        for _ in range(20000):
            stalled.send({"id": 1, "method": "keeper.status"})
    except TimeoutError:
        pass
    if threads(pid) <= before:
        return False  # it has not stalled: the test is no good
    for _ in range(120):
        if threads(pid) <= before:
            return True
        time.sleep(0.5)
    return False


def many_clients():
    channels = []
    try:
        for _ in range(1000):
            channels.append(pvctl.Channel())
    except (ConnectionError, BlockingIOError):
        return 100 <= len(channels) < 200 and "result" in channels[0].call("keeper.status")
    return False


sys.exit(0 if globals()[sys.argv[2]]() else 1)
P
for rude in endless_key device_key never_reads many_clients; do
    check "a rude client: $rude" timeout 150 python3 "$T/rude.py" "$here" $rude
done
check "the keeper has survived all this" in_state t open
foreign() { # only the owner (and root) may talk to it; the directory keeps others out already
    [ "$(stat -c %a "$PVOL_RUNTIME")" = 700 ] && [ "$(stat -c %a "$PVOL_RUNTIME/control")" = 600 ]
}
check "sockets are private" foreign
not_dumpable() { ! grep -qs . "/proc/$1/environ" || [ -n "$ROOT" ] && [ "$(stat -c %u "/proc/$1/mem")" = 0 ]; }
check "the keeper cannot be inspected by its owner" not_dumpable "$(keeper_pid)"
check "nor the engine" not_dumpable "$(engine_pid t)"

# ---- SIGTERM ----
engine=$(engine_pid t) keeper=$(keeper_pid)
must kill -TERM "$engine"
must kill -INT "$engine"
check "an engine with a keeper ignores SIGTERM" eval 'sleep 1; kill -0 "$engine" && served t'
must kill -TERM "$keeper"
check "SIGTERM to the keeper: it ends" wait_for 90 not kill -0 "$keeper"
check "SIGTERM: the engine has ended" wait_for 30 not kill -0 "$engine"
check "SIGTERM: nothing is mounted" not mounted "$T/t"
check "SIGTERM: closed" in_state t closed
check "SIGTERM: in order" test "$(status t 's["incidents"]')" = "[]"
must open_volume t
check "SIGTERM: data" cmp "$T/data" "$T/t/data"

# ---- SIGTERM while a volume is being made ----
pvol create half --size 4G --full --passphrase-file "$PASS" --at "$T/half" "${CHEAP[@]}" >"$T/half.log" 2>&1 &
half=$!
must wait_for 60 test -s "$PVOL_HOME/containers/half.pvol"
keeper=$(keeper_pid)
must kill -TERM "$keeper"
check "a creation cut short: the keeper ends" wait_for 90 not kill -0 "$keeper"
wait "$half"
check "a creation cut short: it is told" grep -q 'told to stop' "$T/half.log"
check "a creation cut short: nothing is left of it" test ! -e "$PVOL_HOME/containers/half.pvol"
must open_volume t

# ---- an engine that does not answer ----
engine=$(engine_pid t)
must kill -STOP "$engine"
check "an engine that is stuck: a forced close ends it" timeout 90 "$PVOL" close t --force
check "an engine that is stuck: it is gone, and so is its mount" eval '! kill -0 "$engine" && ! mounted "$T/t"'
kill -CONT "$engine" 2>/dev/null
must open_volume t
check "an engine that was stuck: data" cmp "$T/data" "$T/t/data"

# ---- keeper gone, then SIGTERM to the engine ----
engine=$(engine_pid t)
must kill -KILL "$(keeper_pid)"
sleep 0.5
must kill -TERM "$engine"
check "an engine without a keeper ends on SIGTERM" wait_for 60 not kill -0 "$engine"
check "it has unmounted" not mounted "$T/t"
check "then the volume is closed" in_state t closed
must open_volume t
check "and its data are there" cmp "$T/data" "$T/t/data"

# ---- unmounted by hand ----
unmount() { if [ -n "$ROOT" ]; then umount "$1"; else fusermount3 -u "$1"; fi; }
must unmount "$T/t"
check "unmounted by hand: the volume closes" wait_for 60 in_state t closed
check "unmounted by hand: the engine ends" wait_for 30 not test -e "$PVOL_RUNTIME/engine.t"
must open_volume t

# ---- the lock ----
cat >"$T/lock.py" <<'P'
import fcntl, os, struct, sys, time
f = open(sys.argv[1], "r+b")
# struct flock of an open-file-description lock
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
print("locked", flush=True)
time.sleep(600)
P
c=$(container t)
check "an open container is locked" not timeout 20 python3 "$T/lock.py" "$c"
must pvol close t
python3 "$T/lock.py" "$c" >"$T/locked" &
locker=$!
must wait_for 60 grep -q locked "$T/locked"
check "a locked container: busy, naming the process" fails_with 5 "process $locker" open_volume t
check "a locked container: nothing is mounted" not mounted "$T/t"
kill "$locker"
wait "$locker" 2>/dev/null
must open_volume t

# ---- another volume's container at the registered place: its keys are not destroyed in the wrong name ----
must pvol header backup t "$T/t.header"
must pvol close t
must new_volume v --size 128M
must pvol close v
foreign=$(container v)
must mv "$c" "$T/t.away"
must cp --sparse=always "$foreign" "$c"
check "an exchanged container is not erased" fails_with 1 'another volume' pvol erase t --yes
check "nor is its key slot removed" fails_with 1 'another volume' pvol key remove t --slot 0 --force
check "nor its header replaced" fails_with 1 'another volume' pvol header restore t "$T/t.header" --yes
check "it is as it was" cmp "$foreign" "$c"
must truncate -s 128M "$c"
must mkfs.ext4 -q -F "$c"
must cp --sparse=always "$c" "$T/new.ext"
check "a file system in its place is not overwritten with a header" fails_with 1 'another volume|belongs to it' \
    pvol header restore t "$T/t.header" --yes
check "it is as it was made" cmp "$T/new.ext" "$c"
must mv "$T/t.away" "$c"
must dd if=/dev/zero of="$c" bs=64K count=64 conv=notrunc status=none
check "without any header the registry tells that the backup is its own" \
    pvol header restore t "$T/t.header" --yes
check "and it opens" open_volume t
must pvol forget v

# ---- a mount of somebody else where a volume was open when all was killed ----
if [ -n "$ROOT" ]; then
    must open_volume t
    engine=$(engine_pid t) keeper=$(keeper_pid)
    must kill -KILL "$keeper" "$engine"
    must wait_for 30 not kill -0 "$engine"
    must umount -l "$T/t"
    cat >"$T/other.py" <<'P'
import ctypes, os, sys, time
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
if ctypes.CDLL(None).mount(b"other", sys.argv[1].encode(), b"fuse", 0, options.encode()):
    sys.exit(1)
print("mounted", flush=True)
time.sleep(600)
P
    python3 "$T/other.py" "$T/t" >"$T/other" &
    other=$!
    must wait_for 30 grep -q mounted "$T/other"
    must in_state t closed
    check "a mount of somebody else is left alone" mounted "$T/t"
    umount -l "$T/t"
    kill "$other"
    wait "$other" 2>/dev/null
    must open_volume t
    check "and the volume opens again, with its data" cmp "$T/data" "$T/t/data"
else
    skip "a mount of somebody else: needs root"
fi

# ---- a device that holds something is not overwritten ----
if [ -n "$ROOT" ] && truncate -s 128M "$T/disk" && loop=$(losetup -f --show "$T/disk" 2>/dev/null); then
    must mkfs.ext4 -q -F "$loop"
    must cp --sparse=always "$T/disk" "$T/disk.before"
    device=(pvol create d --container "$loop" --size 0 --passphrase-file "$PASS" --at "$T/d" "${CHEAP[@]}")
    check "a device with a file system is refused" fails_with 1 'ext4' "${device[@]}"
    check "and left as it is" cmp "$T/disk.before" "$T/disk"
    must wipefs -q --all "$loop"
    check "an empty one is taken" "${device[@]}"
    must pvol close d
    must pvol forget d
    check "a device with a volume is refused" fails_with 1 'volume already' "${device[@]}"
    must losetup -d "$loop"
else
    skip "a device that holds something: needs root and a loop device"
fi

# ---- two volumes, one mount point; a mount point inside a volume ----
must new_volume u --size 128M
check "a mount point that another volume has" fails_with 5 'another volume' \
    pvol create w --size 128M --passphrase-file "$PASS" --at "$T/t" "${CHEAP[@]}"
check "a mount point inside an open volume" fails_with 5 'inside an open volume' \
    pvol create w --size 128M --passphrase-file "$PASS" --at "$T/t/deep" "${CHEAP[@]}"
check "the others are still served" eval 'served t && served u'
must pvol close u

# ---- deaths ----
for n in 1 2; do
    engine=$(engine_pid t)
    must kill -KILL "$engine"
    check "death $n: another engine serves" wait_for 60 other_engine t "$engine"
    check "death $n: data" cmp "$T/data" "$T/t/data"
done
must kill -KILL "$(engine_pid t)"
check "death 3: the volume stays closed" wait_for 60 in_state t failed
check "death 3: nothing is mounted" not mounted "$T/t"
check "death 3: the reason is told" eval 'pvol status t --json | grep -q "died 3 times"'
check "death 3: incidents" eval '[ "$(status t "len(s[\"incidents\"])")" -ge 4 ]'
check "death 3: it opens again by hand" open_volume t
check "death 3: data" cmp "$T/data" "$T/t/data"
check "death 3: the failure is forgotten" in_state t open
must pvol close t
check "all is closed" test -z "$(grep " $T/" /proc/self/mountinfo)"
