#!/bin/bash
# tests/cli/machine.sh BUILDDIR: a machine that lacks something gives a clear error, and nothing is lost. The machine
# is changed in private mount namespaces, in which pvol runs with a runtime directory of its own.
# shellcheck disable=SC2154  # variables of lib.sh
. "$(dirname "$0")/../lib.sh"

# Root is root in its namespace. An ordinary user is root in a user namespace to change the machine, and an ordinary
# user again in a second one when pvol runs.
if [ -n "$ROOT" ]; then
    private() { unshare -m --propagation private bash -c "$@"; }
    as=''
else
    private() { unshare -rm --propagation private bash -c "$@"; }
    as='unshare -U --map-user=1000 --map-group=1000'
fi
if ! private "$as true" 2>"$T/e"; then
    not_ok "private mount namespaces are needed to change the machine: $(cat "$T/e")"
    exit 1
fi
# the keeper of a private run must not outlive its test
end_keeper() {
    local p
    p=$(socket_pid "$1/control" 2>/dev/null) || return 0
    kill "$p" 2>/dev/null
    wait_for 60 not kill -0 "$p"
}
with() { # SETUP ARGUMENT...: pvol ARGUMENT... on a machine changed by SETUP; $1 is the test's directory
    local setup=$1 rc
    shift
    # shellcheck disable=SC2016
    private "$setup && export PVOL_RUNTIME=\$1/run-private && shift && exec $as \"\$@\"" - "$T" "$PVOL" "$@" </dev/null
    rc=$?
    end_keeper "$T/run-private" >/dev/null
    return $rc
}
nothing_new() { # NAME
    [ -z "$(find "$T" -xdev -name "*$1*" ! -name 'check.*' 2>/dev/null)" ] && ! pvol list --json | grep -q "\"$1\""
}
must new_volume t
head -c 3000000 /dev/urandom >"$T/data"
must cp "$T/data" "$T/t/data"
must pvol close t
must end_keeper "$PVOL_RUNTIME"
intact() { open_volume t && cmp "$T/data" "$T/t/data" && pvol close t && end_keeper "$PVOL_RUNTIME"; }
new=(create novel --size 256M --passphrase-file "$PASS" --at "$T/novel" "${CHEAP[@]}")
old=(open t --passphrase-file "$PASS")

# a control: the private machine as it is works; an ordinary user's fusermount3 is not setuid in there, so only for root
if [ -n "$ROOT" ]; then
    check "an unchanged private machine opens the volume" with true "${old[@]}"
    check "and the volume is intact" intact
fi

dev='mkdir -p $1/dev && for n in null zero urandom; do touch $1/dev/$n; mount --bind /dev/$n $1/dev/$n; done && mount --rbind $1/dev /dev'
check "/dev/fuse absent: open" fails_with 1 '/dev/fuse' with "$dev" "${old[@]}"
check "/dev/fuse absent: open says what to do" grep -q 'modprobe fuse\|doctor\|--device' "$T/stderr"
check "/dev/fuse absent: create" fails_with 1 '/dev/fuse' with "$dev" "${new[@]}"
check "/dev/fuse absent: nothing half-made" nothing_new novel
check "/dev/fuse absent: nothing is lost" intact

if [ -z "$ROOT" ]; then
    # a directory in the place of the program, for every copy in the path
    hide='for p in $(type -ap fusermount3); do touch $1/hidden; chmod 644 $1/hidden; mount --bind $1/hidden $p; done'
    check "fusermount3 absent: open" fails_with 1 'fusermount3' with "$hide" "${old[@]}"
    check "fusermount3 absent: open says what to do" grep -q 'fuse3' "$T/stderr"
    check "fusermount3 absent: create" fails_with 1 'fusermount3' with "$hide" "${new[@]}"
    check "fusermount3 absent: nothing half-made" nothing_new novel
    check "fusermount3 absent: nothing is lost" intact
else
    # root mounts and unmounts without it
    hide='for p in $(type -ap fusermount3); do mount --bind /dev/null $p; done'
    check "fusermount3 absent: root does not need it" with "$hide" "${old[@]}"
    check "fusermount3 absent: nothing is lost" intact

    swap='printf "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 1000 0 -2\n" >$1/swaps && mount --bind $1/swaps /proc/swaps'
    check "unencrypted swap: it opens" with "$swap" "${old[@]}" 2>"$T/warned"
    warned() { with "$swap" "${old[@]}" >/dev/null 2>"$T/warned" && grep -Eq '^pvol: t: warning: .*swap.*/dev/sda2' "$T/warned"; }
    check "unencrypted swap: open warns and names it" warned
    check "unencrypted swap: nothing is lost" intact
    quiet() { open_volume t 2>"$T/warned" && pvol close t && not grep -q '/dev/sda2' "$T/warned"; }
    check "and no warning without it" quiet
fi

# the container on a file system that is mounted read-only
mkdir "$T/ro"
must new_volume r --container "$T/ro/r.img"
must cp "$T/data" "$T/r/data"
must pvol close r
must end_keeper "$PVOL_RUNTIME"
# root of the namespace is enough here; an ordinary user in it could not mount
as=''
readonly='mount --bind $1/ro $1/ro && mount -o remount,bind,ro $1/ro'
check "a container on a read-only file system" fails_with 1 'read-only' with "$readonly" open r --passphrase-file "$PASS"
check "create there" fails_with 1 'read-only' with "$readonly" "${new[@]}" --container "$T/ro/novel.img"
check "create there: nothing half-made" nothing_new novel
if [ -n "$ROOT" ]; then
    check "open --read-only works there" with "$readonly" open r --read-only --passphrase-file "$PASS"
fi
still() { pvol open r --passphrase-file "$PASS" && cmp "$T/data" "$T/r/data" && pvol close r; }
check "and it is intact" still
