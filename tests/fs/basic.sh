#!/bin/bash
# The FUSE server on a pool in a plain file, as the user who runs it: tests/fs/basic.sh BUILDDIR
#
# Real programs (cp, tar, rsync, diff, mv) and single system calls (posix.py) on mounted file systems, grafted
# children and snapshots. Prints "ok NAME" or "not ok NAME" per check; exits 1 if one failed.
set -u
export LC_ALL=C
umask 022
BUILD=$(cd "${1:?usage: $0 BUILDDIR}" && pwd)
HERE=$(cd "$(dirname "$0")" && pwd)
SERVE=$BUILD/tests/unit/fs/fsserve
T=$(mktemp -d "${TMPDIR:-/var/tmp}/pvol-fs.XXXXXX") || exit 1
M=$T/mnt
failed=0
pid=

clean() {
    exec 7>&- 2>/dev/null
    [ -n "$pid" ] && { kill "$pid"; wait "$pid"; } 2>/dev/null
    grep -q " $M " /proc/self/mountinfo && fusermount3 -uz "$M"
    cd /
    rm -rf "$T"
}
trap clean EXIT

check() {
    local name=$1
    shift
    if "$@" >"$T/out" 2>&1; then
        echo "ok $name"
    else
        head -c 4000 "$T/out" | sed 's/^/    /'
        echo "not ok $name"
        failed=1
    fi
}

not() { ! "$@"; }

start() {
    rm -f "$T/in" "$T/answers"
    mkfifo "$T/in" "$T/answers"
    "$SERVE" "$@" <"$T/in" >"$T/answers" 2>"$T/log" &
    pid=$!
    exec 7>"$T/in" 8<"$T/answers"
    read -r -t 60 answer <&8 || { echo "not ok start: $(cat "$T/log")"; exit 1; }
    [ "$answer" = "ok ready" ] || { echo "not ok start: $answer"; exit 1; }
}

# say COMMAND...: true if the server answers ok; the answer is in $answer
say() {
    echo "$*" >&7
    read -r -t 120 answer <&8 || { answer="no answer"; echo "$answer"; return 1; }
    echo "$answer"
    [[ $answer == ok* ]]
}

stop() {
    exec 7>&-
    wait "$pid"
    local rc=$?
    pid=
    [ $rc = 0 ] || { cat "$T/log"; return 1; }
    ! grep -q " $M " /proc/self/mountinfo
}

# same inode number? (a copy tool would then refuse to copy)
differ() { [ "$(stat -c %d:%i "$1")" != "$(stat -c %d:%i "$2")" ]; }

start -c 2048 "$T/file" tank "$M"
check mounted grep -q " $M .* fuse.zfs pvol " /proc/self/mountinfo
check no_dataset_name not grep -q tank /proc/self/mountinfo

for c in rename_flags unlinked_open mapped xattrs acls capability extremes holes seek_unwritten append_truncate direct_io times_modes names \
    many_names parallel locks sqlite; do
    check $c timeout 120 python3 "$HERE/posix.py" $c "$M"
done

# trees
SOURCE=/usr/include/linux
mkdir "$T/src"
cp -a $SOURCE "$T/src/tree"
(cd "$T/src" && mkdir sub && head -c 300000 /dev/urandom >sub/one && ln sub/one sub/two && ln -s one sub/link &&
    truncate -s 5M sub/sparse && printf x | dd of=sub/sparse bs=1 seek=3000000 conv=notrunc status=none &&
    mkfifo sub/pipe && chmod 2750 sub && touch -d '2001-02-03 04:05:06.789012345' sub/one)
check cp_a cp -a "$T/src" "$M/cp"
check cp_a_same diff -r --no-dereference --exclude=pipe "$T/src" "$M/cp"
check rsync_aH rsync -aH --delete "$T/src/" "$M/rs/"
check rsync_aH_same bash -c "cd '$T/src' && [ -z \"\$(rsync -aHnic --delete ./ '$M/rs/')\" ]"
check hard_links bash -c "[ \$(stat -c %i '$M/rs/sub/one') = \$(stat -c %i '$M/rs/sub/two') ] && [ \$(stat -c %h '$M/rs/sub/one') = 2 ]"
check nanoseconds [ "$(stat -c %y "$M/cp/sub/one")" = "$(stat -c %y "$T/src/sub/one")" ]
check sparse_copy bash -c "cp --sparse=always '$M/cp/sub/sparse' '$M/sparse2' && cmp '$M/sparse2' '$T/src/sub/sparse' &&
    sync '$M/sparse2' && sleep 1.2 && [ \$(stat -c %b '$M/sparse2') -lt 2000 ]"
check tar bash -c "tar -C '$M/cp' -cf - . | tar -C '$T' -df - --warning=no-xdev 2>&1 | head -0; mkdir '$M/tar' &&
    tar -C '$M/cp' -cf - . | tar -C '$M/tar' -xpf - && diff -r --no-dereference --exclude=pipe '$M/cp' '$M/tar'"
# the kernel is made to forget: files first, since a directory may be becoming somebody's working directory
mkdir "$M/forget"
for d in $(seq 100); do mkdir "$M/forget/$d"; touch "$M/forget/$d"/{1..30}; done
forget() {
    say forget "$1" || return 1
    # shellcheck disable=SC2086
    set -- $answer
    files=$(($2 - $3)) directories=$3
}
forgets_files() { forget 2500 && [ $files -ge 2000 ] && [ "$directories" = 0 ]; }
check forgets_files forgets_files
forgets_directories() { forget 100000 && [ "$directories" -ge 90 ]; }
check forgets_directories forgets_directories
check forgotten_is_found bash -c "[ \$(ls -lR '$M/forget' | wc -l) -gt 3000 ]"
check fsync dd if=/dev/urandom of="$M/synced" bs=64k count=16 conv=fsync status=none
check remove_tree bash -c "rm -rf '$M/tar' && [ ! -e '$M/tar' ]"

# snapshots
S=$M/.zfs/snapshot
echo one >"$M/doc"
echo kept >"$M/cp/kept"
check snapshot say snapshot tank one
echo two >"$M/doc"
rm -r "$M/cp/sub"
check zfs_hidden bash -c "! ls -A '$M' | grep -q zfs"
check snapshot_listed [ "$(ls "$S")" = one ]
check snapshot_reads [ "$(cat "$S/one/doc")" = one ]
check snapshot_inode differ "$S/one/doc" "$M/doc"
check snapshot_restore bash -c "cp '$S/one/doc' '$M/doc' && [ \$(cat '$M/doc') = one ]"
check snapshot_diff diff -r --no-dereference --exclude=pipe "$S/one/cp" "$T/src" --exclude=kept
check snapshot_rsync bash -c "rsync -aH '$S/one/cp/' '$M/cp/' && diff -r --no-dereference --exclude=pipe '$S/one/cp' '$M/cp'"
check snapshot_tar bash -c "mkdir '$M/untar' && tar -C '$S/one/cp' -cf - . | tar -C '$M/untar' -xpf - && diff -r --exclude=pipe --no-dereference '$S/one/cp' '$M/untar'"
check snapshot_refuses bash -c "! echo x >'$S/one/doc' && ! touch '$S/one/new' && ! rm '$S/one/doc' && ! mkdir '$S/new' &&
    ! mv '$S/one/doc' '$M/x' && [ \$(cat '$S/one/doc') = one ]" 2>/dev/null
check snapshot_append_repaired bash -c "{ echo more >>'$S/one/doc'; } 2>/dev/null; sleep 0.5; [ \"\$(cat '$S/one/doc')\" = one ]"
check snapshot_missing not stat "$S/none"
check snapshot_second say snapshot tank two
check snapshot_seen_at_once [ "$(ls "$S" | tr '\n' ' ')" = "one two " ]
check snapshot_second_reads diff "$S/two/doc" "$M/doc"
check snapshot_close say remove tank@two
check snapshot_destroyed say destroy tank@two
check snapshot_gone [ "$(ls "$S")" = one ]

# rollback
echo three >"$M/doc"
echo new >"$M/created-later"
stat "$M/was-missing" >/dev/null 2>&1
head -c 1000000 /dev/urandom >"$M/cp/kept"
rm "$M/synced"
stat "$M/synced" >/dev/null 2>&1
cd "$M/cp/tree"
check rollback say rollback tank one
check rollback_keeps_cwd bash -c "[ \"\$(/bin/pwd -P)\" = '$M/cp/tree' ] && ls >/dev/null"
cd /
check rollback_data [ "$(cat "$M/doc")$(cat "$M/cp/kept")" = onekept ]
check rollback_size [ "$(stat -c %s "$M/cp/kept")" = 5 ]
check rollback_names bash -c "[ ! -e '$M/created-later' ] && [ -e '$M/synced' ] && ls '$M' | grep -q synced"
check rollback_goes_on bash -c "echo again >'$M/doc' && [ \$(cat '$M/doc') = again ]"
check rollback_tree diff -r --no-dereference --exclude=pipe --exclude=kept "$M/cp" "$T/src"

# grafted children
stat "$M/child" >/dev/null 2>&1
check child_create say create tank/child
check child_add say add tank/child
check child_sees_at_once test -d "$M/child"
check child_listed bash -c "[ \"\$(ls -di '$M/child' | cut -d' ' -f1)\" = \"\$(ls -i '$M' | grep ' child' | sed 's/^ *//' | cut -d' ' -f1)\" ]"
echo data >"$M/child/file"
check child_link_exdev python3 - "$M" <<'PY'
import errno, os, sys
os.chdir(sys.argv[1])
for call in os.link, os.rename:
    try:
        call("child/file", "outside")
    except OSError as e:
        assert e.errno == errno.EXDEV, e
    else:
        raise SystemExit("no EXDEV")
for call, args in ((os.rmdir, ("child",)), (os.rename, ("child", "other"))):
    try:
        call(*args)
    except OSError as e:
        assert e.errno == errno.EBUSY, e
    else:
        raise SystemExit("no EBUSY")
PY
check child_mv bash -c "mv '$M/child/file' '$M/moved' && [ \$(cat '$M/moved') = data ] && mv '$M/moved' '$M/child/file'"
check child_inode differ "$M/child" "$M"
check child_statfs bash -c "head -c 3000000 /dev/urandom >'$M/child/big' && sync '$M/child/big' && sleep 1 &&
    [ \$(stat -f -c '%b-%f' '$M/child' | sed 's/-/ - /' | xargs expr) != \$(stat -f -c '%b-%f' '$M' | sed 's/-/ - /' | xargs expr) ]"
check child_snapshot say snapshot tank/child s
echo changed >"$M/child/file"
check child_snapshot_reads [ "$(cat "$M/child/.zfs/snapshot/s/file")" = data ]
check child_snapshot_restores bash -c "cp '$M/child/.zfs/snapshot/s/file' '$M/child/file' && [ \$(cat '$M/child/file') = data ]"
check child_rollback say rollback tank/child s
check grandchild_create say create tank/child/deep
check grandchild_add say add tank/child/deep
check grandchild_writes bash -c "echo deep >'$M/child/deep/f'"
check child_remove_refused not say remove tank/child
check grandchild_remove say remove tank/child/deep
check grandchild_uncovered bash -c "[ -d '$M/child/deep' ] && [ ! -e '$M/child/deep/f' ]"
check grandchild_again say add tank/child/deep
check grandchild_reads [ "$(cat "$M/child/deep/f")" = deep ]
exec 9<"$M/child/deep/f"
check remove_busy not say remove tank/child/deep
check holders say holders
check holders_tell bash -c "[[ '$answer' == *'\"what\":\"file\"'* ]]"
check stop_busy not say stop
exec 9<&-
check still_there [ "$(cat "$M/child/deep/f")" = deep ]
check list say list
check list_tells bash -c "[[ '$answer' == *'\"dataset\":\"tank/child/deep\"'*'\"kind\":\"graft\"'* ]]"

# what an unmount must not lose
head -c 20000000 /dev/urandom >"$T/late"
cp "$T/late" "$M/late"
echo last >"$M/child/last"
check orderly_end stop
start "$T/file" tank "$M"
check data_back cmp "$T/late" "$M/late"
check children_back [ "$(cat "$M/child/last")$(cat "$M/child/deep/f")" = lastdeep ]
check tree_back diff -r --no-dereference --exclude=pipe --exclude=kept "$M/cp" "$T/src"

# ended from outside
check fusermount fusermount3 -u "$M"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    say ended >/dev/null
    [ "$answer" = "ok 1" ] && break
    sleep 0.3
done
check ended_told [ "$answer" = "ok 1" ]
check ended_stop stop

# forced
start "$T/file" tank "$M"
exec 9>>"$M/forced"
echo written >&9
check forced_end say kill
check forced_error bash -c '! { echo more >&9; } 2>/dev/null || ! sync /proc/self/fd/9 2>/dev/null'
exec 9>&-
check forced_finish stop
start "$T/file" tank "$M"
check forced_kept [ "$(cat "$M/forced")" = written ]
check finish stop

# mount points
mkdir "$T/full"
touch "$T/full/x" "$T/plain"
for at in "$T/full" "$T/plain"; do
    "$SERVE" "$T/file" tank "$at" </dev/null >"$T/refusal" 2>&1
    check "refuses_${at##*/}" grep -q '^error: mount: .*the mount point is not' "$T/refusal"
done
exit $failed
