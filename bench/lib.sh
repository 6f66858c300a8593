# Helpers for peers/NAME.  Sourced by bench/run before the peer file.
# Set by the harness:
#   STORE  backing directory on the disk under test; empty before the first up,
#          kept across down/up (so a second up is a cold re-mount of the same data)
#   RUN    scratch directory for pid files and sockets
#   PASS   file holding the passphrase
#   HERE   this folder
#   BASE   root of everything the harness writes (default /var/tmp/pvol-bench)

IMAGE_SIZE=${IMAGE_SIZE:-8G}

need() { local c; for c in "$@"; do command -v "$c" >/dev/null || { echo "missing: $c"; return 1; }; done; }

# wait_until SECONDS COMMAND... : poll until COMMAND succeeds
wait_until() {
    local n=$(( $1 * 50 )); shift
    while ! "$@" >/dev/null 2>&1; do n=$((n-1)); [ $n -gt 0 ] || return 1; sleep 0.02; done
}

mounted() { mountpoint -q "$1" || grep -q " $1 " /proc/self/mountinfo; }
not() { ! "$@"; }

# umount, retrying while the last handle is being closed
unmount() {
    local i
    for i in $(seq 100); do
        mounted "$1" || return 0
        umount "$1" 2>/dev/null && return 0
        sleep 0.1
    done
    echo "cannot unmount $1"; return 1
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# stop_pid PIDFILE : TERM, wait for exit, KILL after 30 s
stop_pid() {
    local p; p=$(cat "$1" 2>/dev/null) || return 0
    [ -n "$p" ] || return 0
    kill "$p" 2>/dev/null
    wait_until 30 gone "$p" || { kill -9 "$p"; wait_until 5 gone "$p"; }
    rm -f "$1"
}

# remember/stop the daemon that owns a mount, by its command line (our own mounts only)
wait_exit_of() {  # wait_exit_of PATTERN : wait until no process has PATTERN in its command line
    wait_until 30 not pgrep -f -- "$1"
}

# ---- LUKS image decrypted in user space, exposed as a plain file ------------------------

luks_create() {  # luks_create FILE : LUKS1 aes-256-xts, few KDF rounds (not measured)
    local i         # qemu-img times its own KDF and gives up ("accurate CPU usage") on a busy machine
    for i in 1 2 3 4 5; do
        qemu-img create -q -f luks --object secret,id=s,file="$PASS" \
            -o key-secret=s,cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,iter-time=$((i*100)) "$1" "$IMAGE_SIZE" && return 0
        rm -f "$1"
    done
    return 1
}

# qsd_up IMAGE FILE [luks|raw] : decrypted image appears as FILE
qsd_up() {
    local node=f extra=()
    [ "${3:-luks}" = luks ] && { node=l; extra=(--blockdev driver=luks,node-name=l,file=f,key-secret=s); }
    : >> "$2"
    qemu-storage-daemon --daemonize --pidfile "$RUN/qsd.pid" \
        --object secret,id=s,file="$PASS" \
        --blockdev driver=file,node-name=f,filename="$1" "${extra[@]}" \
        --export type=fuse,id=e,node-name=$node,mountpoint="$2",writable=on || return 1
    wait_until 20 mounted "$2"
}
qsd_down() {  # qsd_down FILE
    unmount "$1"; stop_pid "$RUN/qsd.pid"
}

# nbd_up IMAGE FILE [luks|raw] : same, with nbdkit + nbdfuse
nbd_up() {
    local f=(file "$1")
    [ "${3:-luks}" = luks ] && f=(--filter=luks file "$1" passphrase=+"$PASS")
    : >> "$2"
    rm -f "$RUN/nbd.sock"
    nbdkit -U "$RUN/nbd.sock" -P "$RUN/nbdkit.pid" "${f[@]}" || return 1
    wait_until 20 test -s "$RUN/nbdkit.pid"
    nbdfuse -P "$RUN/nbdfuse.pid" "$2" --unix "$RUN/nbd.sock" </dev/null &
    wait_until 20 mounted "$2"
}
nbd_down() {  # nbd_down FILE
    unmount "$1"; stop_pid "$RUN/nbdfuse.pid"; stop_pid "$RUN/nbdkit.pid"
}

# ---- zfs-fuse 0.7, unpacked (not installed) under $BASE/zfs-fuse -------------------------
# The options are the ones Debian's shipped /etc/zfs/zfsrc sets.

ZF=$BASE/zfs-fuse/sbin
ZF_OPTS=${ZF_OPTS:---zfs-prefetch-disable -m 100 -v 10 -a 3600 -e 3600 -o default_permissions}
zfsfuse_check() { [ -x "$ZF/zfs-fuse" ] || { echo "missing: $ZF/zfs-fuse (bench/setup)"; return 1; }; }
zfsfuse_up() {   # zfsfuse_up VDEVFILE DIR
    mkdir -p /var/run/zfs /var/lib/zfs /var/lock/zfs
    "$ZF/zfs-fuse" -p "$RUN/zfs-fuse.pid" --no-kstat-mount $ZF_OPTS || return 1
    wait_until 10 "$ZF/zpool" list || return 1
    if [ -e "$STORE/created" ]; then
        "$ZF/zpool" import -o cachefile=none -d "$(dirname "$1")" benchpool || return 1
    else
        "$ZF/zpool" create -f -o cachefile=none -O checksum=sha256 -O atime=off -m "$2" benchpool "$1" || return 1
        : > "$STORE/created"
    fi
    wait_until 10 mountpoint -q "$2"
}
zfsfuse_down() { # zfsfuse_down DIR
    local i
    for i in $(seq 50); do "$ZF/zpool" export benchpool && break; sleep 0.1; done
    mountpoint -q "$1" || kill -9 "$(cat "$RUN/zfs-fuse.pid")"      # exported: nothing to lose; TERM takes 4 s
    stop_pid "$RUN/zfs-fuse.pid"
    ! mountpoint -q "$1"
}

# ---- kernel file system on a loop device over a plain file -------------------------------
loop_up() {      # loop_up FILE DIR FSTYPE
    local dev; dev=$(losetup -f --show "$1") || return 1
    echo "$dev" > "$RUN/loopdev"
    if [ ! -e "$STORE/created" ]; then
        case $3 in ext4) mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$dev" ;; *) mkfs."$3" -q -f "$dev" ;; esac || return 1
        : > "$STORE/created"
    fi
    mount -t "$3" "$dev" "$2"
}
loop_down() {    # loop_down DIR
    unmount "$1"; losetup -d "$(cat "$RUN/loopdev")"
    wait_until 10 not losetup "$(cat "$RUN/loopdev")"
}
