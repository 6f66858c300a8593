#!/bin/bash
# Nothing grows: descriptors and threads of the keeper over many open/close cycles (CYCLES, 20), processes, mounts and
# files left behind; resident memory of the engine after many files (FILES, 10000) are created, listed and removed,
# and again: the second time must not add to it.
. "$(dirname "$0")/../lib.sh"
cycles=${CYCLES:-20} files=${FILES:-10000} limit_mib=${LIMIT_MIB:-700}

must new_volume anchor
must new_volume t
keeper=$(keeper_pid)
threads() { awk '/^Threads:/ { print $2 }' "/proc/$1/status"; }
# the descriptors of a process that is not dumpable are root's to see
fds() { ls "/proc/$1/fd" 2>/dev/null | wc -l; }
rss_mib() { awk '/^VmRSS:/ { print int($2 / 1024) }' "/proc/$1/status"; }

engine=$(engine_pid t)
work() { # work DIR N: create, list, stat, remove
    python3 - "$1" "$2" <<'P'
import os, sys
d, n = sys.argv[1] + "/many", int(sys.argv[2])
os.mkdir(d)
for i in range(n):
    with open("%s/file-%07d" % (d, i), "w") as f:
        if i % 10 == 0:
            f.write("content\n" * 100)
names = os.listdir(d)
assert len(names) == n, len(names)
for x in names:
    os.stat(d + "/" + x)
for x in names:
    os.unlink(d + "/" + x)
os.rmdir(d)
P
}
before=$(rss_mib "$engine")
check "create, list and remove $files files" work "$T/t" "$files"
first=$(rss_mib "$engine")
work "$T/t" "$files"
second=$(rss_mib "$engine")
work "$T/t" "$files"
third=$(rss_mib "$engine")
echo "    resident memory of the engine: $before MiB idle, $first, $second, $third MiB after one, two, three times $files files"
bounded() { [ "$third" -le "$limit_mib" ]; }
check "memory of the engine stays below $limit_mib MiB" bounded
level() { [ "$third" -le $((second + second / 5 + 16)) ]; }
check "memory of the engine is level" level
held() {
    local n
    n=$(python3 - "$T/t" <<'P'
import os, sys
f = []
for i in range(200):
    p = "%s/open-%d" % (sys.argv[1], i)
    f.append(os.open(p, os.O_RDWR | os.O_CREAT))
    os.write(f[-1], b"x" * 10000)
    os.unlink(p)
print(len(os.listdir(sys.argv[1])))
P
    )
    [ "$n" = 0 ] || [ "$(ls -A "$T/t" | wc -l)" = 0 ]
}
check "files unlinked while open leave nothing" held
must pvol close t

cycle() { open_volume t >/dev/null && echo "$1" >"$T/t/cycle" && pvol close t >/dev/null; }
for i in 1 2 3; do must cycle $i; done
fd0=$(fds "$keeper") th0=$(threads "$keeper") rss0=$(rss_mib "$keeper")
good=0
for i in $(seq "$cycles"); do
    if cycle "$i"; then good=$((good + 1)); else echo "    cycle $i failed"; fi
done
check "$cycles open/close cycles" test "$good" = "$cycles"
fd1=$(fds "$keeper") th1=$(threads "$keeper") rss1=$(rss_mib "$keeper")
echo "    keeper: descriptors $fd0 then $fd1, threads $th0 then $th1, resident $rss0 then $rss1 MiB"
check "the keeper is still the same process" test "$(keeper_pid)" = "$keeper"
check "no descriptors leak in the keeper" test "$fd1" -le "$((fd0 + 1))"
check "no threads leak in the keeper" test "$th1" -le "$th0"
check "the keeper's memory is level" test "$rss1" -le "$((rss0 + 8))"
check "the keeper has no children but the open volume's" \
    test "$(ps -o pid= --ppid "$keeper" | wc -l)" -le 1
check "no mount is left" not mounted "$T/t"
check "no socket of the closed volume is left" test ! -e "$PVOL_RUNTIME/engine.t"
must pvol close anchor
check "the keeper ends when nothing is open" wait_for 60 not kill -0 "$keeper"
check "no socket is left" test -z "$(find "$PVOL_RUNTIME" -type s 2>/dev/null)"
