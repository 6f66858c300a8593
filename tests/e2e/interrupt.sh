#!/bin/bash
# SIGINT at any moment of create leaves nothing half-made: no container, no entry, no mount, and the name is free. At
# least once it must have come in time, or the test proves nothing.
. "$(dirname "$0")/../lib.sh"
in_time=0 finished=0 bad=

try() { # try DELAY
    rm -rf "$T/c.img"
    # python, because a background job of a shell ignores SIGINT
    python3 - "$1" "$PVOL" create i --size 256M --container "$T/c.img" --passphrase-file "$PASS" --at "$T/i" \
        --pbkdf pbkdf2 --iter-time 300 --no-recovery-key <<'P'
import signal, subprocess, sys, time
p = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                     preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
time.sleep(float(sys.argv[1]))
p.send_signal(signal.SIGINT)
try:
    rc = p.wait(60)
except subprocess.TimeoutExpired:
    p.kill()
    sys.exit("hangs")
sys.exit(0 if rc == 0 else 9)
P
    local rc=$?
    if [ $rc = 0 ]; then
        finished=$((finished + 1))
        mounted "$T/i" && pvol close i && pvol forget i && rm "$T/c.img" || bad="$bad made-but-wrong:$1"
        return
    fi
    [ $rc = 9 ] || { bad="$bad rc$rc:$1"; return; }
    in_time=$((in_time + 1))
    # the keeper undoes what was made; a liveness limit
    if ! wait_for 30 clean >/dev/null; then bad="$bad left:$1:$(ls -d "$T/c.img" "$T/i" 2>/dev/null | tr '\n' ' ')"; fi
}
clean() {
    [ ! -e "$T/c.img" ] && ! mounted "$T/i" && ! pvol list --json | grep -q '"i"'
}

for d in 0 0.005 0.01 0.02 0.03 0.05 0.08 0.12 0.16 0.2 0.25 0.3 0.35 0.4 0.45 0.5 0.6 0.7 0.8 1.0 1.3; do try $d; done
echo "    $in_time interrupted, $finished finished before"
check "some were interrupted" test "$in_time" -ge 3
check "interrupted, nothing is left" test -z "$bad"
[ -z "$bad" ] || echo "    $bad"
check "the name is free" pvol create i --size 256M --container "$T/c.img" --passphrase-file "$PASS" --at "$T/i" "${CHEAP[@]}"
check "and the volume works" eval 'echo x >"$T/i/f" && pvol close i'
