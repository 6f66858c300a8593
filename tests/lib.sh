# Sourced by the test scripts: . "$(dirname "$0")/../lib.sh"   (after it, $1 is still the build directory)
#
# A script is called with the directory that holds the program `pvol` (a build directory, or the bin directory of an
# installation), prints "ok NAME", "not ok NAME" or "skip NAME: reason" per behaviour, and exits 1 if one failed.
# Sets: PVOL (the program), T (a private directory, removed at the end), PVOL_HOME, PVOL_RUNTIME, PASS (a
# passphrase file), WRONG (another one), ROOT (1 when run as root), CHEAP (options for a cheap key derivation).
set -u
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
umask 022
BIN=$(cd "${1:?usage: $0 BUILDDIR}" && pwd)
PVOL=$BIN/pvol
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$([ "$(id -u)" = 0 ] && echo 1)
T=$(mktemp -d "${TMPDIR:-/var/tmp}/pvol-test.XXXXXX") || exit 1
[ -x "$PVOL" ] || { echo "not ok ${0##*/}: no program $PVOL"; rm -rf "$T"; exit 1; }
export HOME=$T/user PVOL_HOME=$T/home PVOL_RUNTIME=$T/run
unset XDG_RUNTIME_DIR XDG_DATA_HOME
mkdir -p "$HOME" "$PVOL_HOME"
PASS=$T/pass WRONG=$T/wrong
printf 'correct horse battery staple' >"$PASS"
printf 'wrong horse' >"$WRONG"
chmod 600 "$PASS" "$WRONG"
CHEAP=(--pbkdf pbkdf2 --iter-time 1 --no-recovery-key)
failed=0

pvol() { "$PVOL" "$@" </dev/null; }

ok() { echo "ok $*"; }
not_ok() { echo "not ok $*"; failed=1; }
skip() { echo "skip $*"; }

# check NAME COMMAND...: "ok NAME" if the command succeeds, else its output and "not ok NAME"
check() {
    local name=$1 out rc
    shift
    out=$T/check.$BASHPID
    # without a pipe: a daemon that the command starts would hold it open
    "$@" >"$out" 2>&1
    rc=$?
    if [ $rc = 0 ]; then
        ok "$name"
    else
        head -c 6000 "$out" | sed 's/^/    /'
        echo "    (exit code $rc: $*)" | head -c 400
        echo
        not_ok "$name"
    fi
    rm -f "$out"
    return $rc
}

# must COMMAND...: what the rest of the script stands on
must() {
    "$@" >"$T/must" 2>&1 && return
    local rc=$?
    head -c 6000 "$T/must" | sed 's/^/    /'
    not_ok "${0##*/}: cannot go on: exit code $rc: $*"
    exit 1
}

# fails_with CODE TEXT COMMAND...: it exits with CODE (an alternative may be given as 1|5) and says TEXT (a regular
# expression, on standard error)
fails_with() {
    local code=$1 text=$2 rc
    shift 2
    "$@" 2>"$T/stderr" </dev/null
    rc=$?
    cat "$T/stderr"
    [[ "|$code|" == *"|$rc|"* ]] || { echo "exit code $rc, expected $code"; return 1; }
    grep -Eqi -- "$text" "$T/stderr" || { echo "does not say: $text"; return 1; }
}

# wait_for SECONDS COMMAND...: a liveness limit, to be chosen with ample slack
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "still not after the limit: $*"; return 1; }
        sleep 0.1
    done
}

not() { ! "$@"; }
mounted() { grep -q " $1 " /proc/self/mountinfo; }

# socket_pid PATH: the process that listens on a Unix socket (names of 108 bytes and more work too)
socket_pid() {
    python3 - "$1" <<'P'
import os, socket, struct, sys
d, n = os.path.split(sys.argv[1])
os.chdir(d)
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
try:
    s.connect(n)
except OSError:
    sys.exit(1)
print(struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
P
}
keeper_pid() { socket_pid "$PVOL_RUNTIME/control"; }
engine_pid() { socket_pid "$PVOL_RUNTIME/engine.$1"; }

# status NAME EXPRESSION: a field of `pvol status NAME --json`, by a Python expression on s
status() {
    pvol status "$1" --json >"$T/status.json" && python3 -c '
import json, sys
s = json.load(open(sys.argv[1]))
print(eval(sys.argv[2]))' "$T/status.json" "$2"
}

# new_volume NAME [OPTION...]: a cheap volume of SIZE (1G), mounted at $T/NAME; open_volume, close_volume alike
new_volume() {
    local name=$1
    shift
    pvol create "$name" --size "${SIZE:-1G}" --passphrase-file "$PASS" --at "$T/$name" "${CHEAP[@]}" "$@"
}
open_volume() {
    local name=$1
    shift
    pvol open "$name" --passphrase-file "$PASS" "$@"
}
close_volume() { pvol close "$@"; }

# zdb_volume NAME ARGUMENT...: Debian's zdb on the guest pool of a closed volume
zdb_volume() {
    local name=$1
    shift
    pvol zdb --passphrase-file "$PASS" "$name" "$@"
}

# The container of a volume.
container() {
    pvol list --json >"$T/list.json" && python3 -c '
import json, sys
l = json.load(open(sys.argv[1]))
l = l["volumes"] if isinstance(l, dict) else l
print([v["container"] for v in l if v["name"] == sys.argv[2]][0])' "$T/list.json" "$1"
}

cleanup() {
    local rc=$? p s m
    trap - EXIT
    cd /
    # shellcheck disable=SC2046  # a list of our own background jobs
    kill $(jobs -p) 2>/dev/null
    # not before the sockets are known: they go with an orderly end
    local pids=()
    for s in "$PVOL_RUNTIME"/control "$PVOL_RUNTIME"/engine.*; do
        [ -S "$s" ] && p=$(socket_pid "$s") && pids+=("$p")
    done
    if [ ${#pids[@]} -gt 0 ]; then
        timeout 60 "$PVOL" close --all --force </dev/null >/dev/null 2>&1
        for p in "${pids[@]}"; do
            # ours by construction: they listen in our private runtime directory
            for s in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$p" 2>/dev/null || break; sleep 0.2; done
            kill -9 "$p" 2>/dev/null
        done
    fi
    awk -v t="$T/" 'index($5, t) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r m; do
        echo "    left mounted: $m"
        if [ -n "$ROOT" ]; then umount -l "$m"; else fusermount3 -u -z "$m"; fi
    done
    if [ -n "${KEEP:-}" ] || ! rm -rf --one-file-system "$T"; then echo "    kept: $T"; fi
    [ $rc = 0 ] || exit $rc
    exit $failed
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
