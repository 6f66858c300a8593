#!/bin/bash
# tests/cli/doctor.sh BUILDDIR: pvol doctor tells what is wrong with a machine. The machine is changed in private mount
# namespaces only: /dev, /proc/swaps and the fuse programs are covered there, for the test's own processes.
# shellcheck disable=SC2154  # variables of lib.sh
. "$(dirname "$0")/../lib.sh"

finding() { # CHECK STATE [TEXT]: the report in $T/doctor has it
    python3 - "$T/doctor" "$@" <<'P'
import json, re, sys
path, check, state, *text = sys.argv[1:]
found = [c for c in json.load(open(path))["checks"] if c["check"] == check]
assert found, "nothing about " + check
assert any(c["state"] == state and (not text or re.search(text[0], c["text"] + " " + c.get("remedy", ""), re.I))
           for c in found), found
P
}

pvol doctor --json >"$T/doctor" 2>"$T/e"
doctor_rc=$?
agrees() {
    local fails
    fails=$(python3 -c 'import json,sys; print(sum(c["state"] == "fail" for c in json.load(open(sys.argv[1]))["checks"]))' "$T/doctor")
    if [ "$fails" = 0 ]; then [ $doctor_rc = 0 ]; else [ $doctor_rc = 1 ]; fi
}
check "exit code and findings agree" agrees
for c in fuse fusermount3 mounts libzpool zdb memlock memfd_secret swap core io_uring landlock seccomp aes sha256 \
    directories keeper; do
    check "doctor looks at $c" grep -q "\"check\":\"$c\"" "$T/doctor"
done
check "FUSE can be used here" finding fuse ok
check "no keeper runs" finding keeper ok 'not running'
check "doctor starts none" test ! -e "$PVOL_RUNTIME/control"
people() {
    pvol doctor >"$T/text"
    [ "$(grep -Ec '^(ok|warn|fail) ' "$T/text")" = "$(grep -Eo '"check":' "$T/doctor" | wc -l)" ]
}
check "a line for each finding" people

# A private mount namespace: root has one; an ordinary user is root in a user namespace, sets the machine up there, and
# becomes an ordinary user again in a second one.
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
doctor_with() { # COMMANDS: what doctor says on a machine so changed; $1 is the test's directory
    private "$1 && $as"' "$2" doctor --json >"$3" 2>"$4"; rc=$?; [ $rc = 0 ] || [ $rc = 1 ]' \
        - "$T" "$PVOL" "$T/doctor" "$T/e" </dev/null
}
swap='printf "Filename\tType\tSize\tUsed\tPriority\n%s partition 1000 0 -2\n" "$area" >$1/swaps && mount --bind $1/swaps /proc/swaps'
check "a machine with unencrypted swap" doctor_with "area=/dev/sda2; $swap"
check "doctor warns of it" finding swap warn /dev/sda2
check "a machine with compressed memory as swap" doctor_with "area=/dev/zram0; $swap"
check "doctor finds that safe" finding swap ok

# $1/dev as /dev, with nothing but /dev/null and what is added before
dev='mkdir -p $1/dev && touch $1/dev/null && mount --bind /dev/null $1/dev/null && mount --rbind $1/dev /dev'
check "a machine without /dev/fuse" doctor_with "$dev"
check "doctor fails it" finding fuse fail 'absent'
check "and says what to do" finding fuse fail 'modprobe fuse'

level=$([ -n "$ROOT" ] && echo warn || echo fail)
check "a machine without fusermount3" doctor_with 'mkdir $1/empty; ln -s "$(type -P unshare)" $1/empty; PATH=$1/empty'
check "doctor tells: no fusermount3" finding fusermount3 "$level" 'fuse3'
printf '#!/bin/sh\n' >"$T/fusermount3"
chmod 755 "$T/fusermount3"
check "a machine whose fusermount3 is not setuid" doctor_with 'PATH=$1:$PATH'
check "doctor tells: not setuid" finding fusermount3 "$level" 'setuid'

# /dev/fuse closed to users, as on a machine without udev
if [ -n "$ROOT" ]; then
    check "a machine whose /dev/fuse is closed to users" \
        doctor_with "mkdir -p \$1/dev && mknod -m 600 \$1/dev/fuse c 10 229 && $dev"
    check "doctor warns root of it" finding fuse warn '0600'
    check "with the remedy" finding fuse warn 'chmod 0666'
else
    # a file stands in for the device, which only root can make
    check "a machine whose /dev/fuse is closed to users" \
        doctor_with "mkdir -p \$1/dev && touch \$1/dev/fuse && chmod 000 \$1/dev/fuse && $dev"
    check "doctor fails it: closed" finding fuse fail 'closed to you'
    check "and says what to do: chmod" finding fuse fail 'chmod 0666'
    check "and explains Debian's udev rule" finding fuse fail 'udev'
fi
