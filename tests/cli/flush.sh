#!/bin/bash
# tests/cli/flush.sh BUILDDIR: the backing file fails a flush (simulated inside the engine). The device is failed for
# good: nothing that was not flushed is ever reported as safe, applications get errors and no hang, status says so, and
# what was safe before is there after a close and a new open.
# shellcheck disable=SC2154  # variables of lib.sh
. "$(dirname "$0")/../lib.sh"

must new_volume t
head -c 3000000 /dev/urandom >"$T/data"
must cp "$T/data" "$T/t/kept"
must sync "$T/t/kept"
must pvol close t
p=$(keeper_pid)
[ -z "$p" ] || must wait_for 60 not kill -0 "$p"

# every flush fails from here on; the keeper takes it from its own environment
export PVOL_TEST_SIM=seed=1,flush_error=1
opened=0
open_volume t >"$T/o" 2>&1 && opened=1
if [ $opened = 1 ]; then
    # python, so that the result of fsync itself is seen
    unsafe() {
        timeout 120 python3 - "$T/t/lost" <<'P'
import os, sys
try:
    f = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(f, b"x" * 100000)
    os.fsync(f)
except OSError as e:
    print(e)
    sys.exit(0)
sys.exit("fsync reported success")
P
    }
    check "fsync fails and does not hang" unsafe
    said() { pvol status t >"$T/s" 2>&1; pvol status t --json >>"$T/s" 2>&1; grep -Eqi 'suspend|fail|flush|error' "$T/s"; }
    check "status tells" wait_for 30 said
    check "close --force ends it" timeout 120 "$PVOL" close --force t
else
    check "open says why it failed" grep -Eqi 'flush|I/O|Input/output|write|failed|suspend' "$T/o"
fi
check "nothing stays mounted" wait_for 60 not mounted "$T/t"

unset PVOL_TEST_SIM
p=$(keeper_pid)
if [ -n "$p" ]; then
    kill "$p"
    check "the keeper ends" wait_for 90 not kill -0 "$p"
fi
check "it opens again on a sound disk" open_volume t
check "what was safe is there" cmp "$T/data" "$T/t/kept"
check "close" pvol close t
sound() { zdb_volume t -bcc >"$T/zdb" 2>&1 && grep -q 'No leaks' "$T/zdb" || { tail -30 "$T/zdb"; false; }; }
check "zdb finds no leak and no error" sound
