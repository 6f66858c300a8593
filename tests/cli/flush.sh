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
end_keeper() {
    local p
    p=$(keeper_pid) || return 0
    kill "$p" 2>/dev/null
    wait_for 90 not kill -0 "$p"
}
must end_keeper

# One flush in thirty fails; the keeper takes this from its own environment. A seed with which already the import meets
# one proves nothing here, so another is tried then.
for seed in 1 2 3 4 5 6; do
    export PVOL_TEST_SIM=seed=$seed,flush_error=0.03
    timeout 20 "$PVOL" open t --passphrase-file "$PASS" </dev/null >"$T/o" 2>&1 && break
    must end_keeper
done
check "it opens (seed $seed)" mounted "$T/t"
# python, so that the result of fsync itself is seen; the second one after the first that failed must fail too
unsafe() {
    timeout -k 5 60 python3 - "$T/t/lost" >"$T/py" 2>&1 <<'P' &
import os, sys
failures = 0
for i in range(3000):
    try:
        f = os.open("%s%d" % (sys.argv[1], i), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(f, b"x" * 10000)
        os.fsync(f)
        os.close(f)
        if failures:
            sys.exit("fsync reports success after a flush has failed")
    except OSError as e:
        print(i, e)
        failures += 1
        if failures == 2:
            sys.exit(0)
sys.exit("no fsync failed")
P
    # in the background: what hangs in the kernel cannot be killed before its engine
    local p=$!
    wait_for 70 not kill -0 $p || return 1
    cat "$T/py"
    wait $p
}
check "fsync fails, for good, and does not hang" unsafe
said() { pvol status t >"$T/s" 2>&1; grep -Eqi 'suspend|fail|damaged|device' "$T/s"; }
check "status tells" wait_for 30 said
check "close --force ends it" timeout 120 "$PVOL" close --force t
check "nothing stays mounted" wait_for 60 not mounted "$T/t"

unset PVOL_TEST_SIM
check "the keeper ends" end_keeper
check "it opens again on a sound disk" open_volume t
check "what was safe is there" cmp "$T/data" "$T/t/kept"
check "close" pvol close t
sound() { zdb_volume t -bcc >"$T/zdb" 2>&1 && grep -q 'No leaks' "$T/zdb" || { tail -30 "$T/zdb"; false; }; }
check "zdb finds no leak and no error" sound
