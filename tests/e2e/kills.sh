#!/bin/bash
# Killed with -9: an engine comes back by itself with its mounts, what was fsynced is there, the program that was
# writing saw an error and did not hang; a keeper is replaced and adopts the engines; killed, both leave a closed volume.
# The times are liveness limits with ample slack.
. "$(dirname "$0")/../lib.sh"

# Writes files and fsyncs each; after each fsync that returned, says so in a log; ends at the first error.
cat >"$T/writer.py" <<'P'
import os, sys
d, log = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
i = 0
while True:
    try:
        f = os.open("%s/f%06d" % (d, i), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(f, (b"%d\n" % i) * 3000)
        os.fsync(f)
        os.close(f)
    except OSError as e:
        os.write(log, b"error %s\n" % e.strerror.encode())
        sys.exit(7)
    os.write(log, b"%d\n" % i)
    i += 1
P
cat >"$T/verify.py" <<'P'
import sys
d, log, n = sys.argv[1], sys.argv[2], 0
for line in open(log):
    if line.startswith("error"):
        continue
    i = int(line)
    with open("%s/f%06d" % (d, i), "rb") as f:
        assert f.read() == (b"%d\n" % i) * 3000, "file %d is wrong" % i
    n += 1
print(n, "files fsynced and intact")
assert n > 0
P
start_writer() { # start_writer NAME: writes into a new directory of that name
    mkdir "$T/t/$1" && : >"$T/$1.log" || return 1
    timeout 300 python3 "$T/writer.py" "$T/t/$1" "$T/$1.log" &
    writer=$!
    wait_for 60 grep -q '^5$' "$T/$1.log"
}
ends_with_error() { # the writer ends by itself, with an error, within the limit
    wait_for 60 not kill -0 "$writer" || { kill -9 "$writer"; return 1; }
    wait "$writer"
    [ $? = 7 ]
}
served() { timeout 10 ls "$T/t" >/dev/null && mounted "$T/t" && timeout 10 touch "$T/t/.probe"; }
verify() { timeout 120 python3 "$T/verify.py" "$T/t/$1" "$T/$1.log"; }

must new_volume t
must start_writer one
engine=$(engine_pid t) keeper=$(keeper_pid)
[ -n "$engine" ] || { not_ok "kills: no engine listens"; exit 1; }
t0=$(date +%s%N)
kill -9 "$engine"
check "engine killed: the writer sees an error, not a hang" ends_with_error
check "engine killed: the mount is back" wait_for 60 served
echo "    back after $((($(date +%s%N) - t0) / 1000000)) ms"
check "engine killed: all that was fsynced is there" verify one
check "engine killed: another engine serves" test "$(engine_pid t)" != "$engine"
check "engine killed: one mount, not two" test "$(grep -c " $T/t " /proc/self/mountinfo)" = 1
incident() { pvol status t --json | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["incidents"])'; }
check "engine killed: status tells of the incident" incident

must start_writer two
kill -9 "$keeper"
check "keeper killed: the engine goes on serving" served
n=$(wc -l <"$T/two.log")
check "keeper killed: the writer goes on" wait_for 60 eval '[ "$(wc -l <"$T/two.log")" -gt $((n + 3)) ]'
check "keeper killed: the next command adopts the engine" eval 'pvol status t --json | grep -q open'
check "keeper killed: another keeper" eval '[ -n "$(keeper_pid)" ] && [ "$(keeper_pid)" != "$keeper" ]'
check "keeper killed: the mount is still there" served
engine=$(engine_pid t)
kill -9 "$engine"
check "engine killed below the next keeper: the writer sees an error" ends_with_error
check "engine killed below the next keeper: the mount is back" wait_for 60 served
check "engine killed below the next keeper: all that was fsynced is there" verify two

must start_writer three
engine=$(engine_pid t) keeper=$(keeper_pid)
kill -9 "$keeper" "$engine"
check "both killed: the writer sees an error" ends_with_error
closed() { pvol list --json | python3 -c '
import json, sys
l = json.load(sys.stdin)
l = l["volumes"] if isinstance(l, dict) else l
sys.exit([v["state"] for v in l if v["name"] == "t"] != ["closed"])'; }
check "both killed: the volume is closed" closed
check "both killed: no dead mount is left" wait_for 60 not mounted "$T/t"
check "both killed: open" open_volume t
check "both killed: all that was fsynced is there" verify three
check "both killed: and from before" verify one
check "close" pvol close t
zdb_clean() { zdb_volume t -bcc >"$T/zdb" 2>&1 && grep -q 'No leaks' "$T/zdb" || { cat "$T/zdb"; return 1; }; }
check "the pool is sound after all this (zdb)" zdb_clean
