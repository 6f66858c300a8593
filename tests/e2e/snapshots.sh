#!/bin/bash
# Snapshots: what they hold, reading them below .zfs/snapshot with ordinary programs, restoring with cp, rollback.
. "$(dirname "$0")/../lib.sh"

must new_volume t
must pvol create t/docs
mkdir -p "$T/t/d" "$T/before"
for i in $(seq 200); do echo "old $i" >"$T/t/d/f$i"; done
head -c 3000000 /dev/urandom >"$T/t/d/large"
ln "$T/t/d/f1" "$T/t/d/hard"
ln -s f2 "$T/t/d/soft"
echo child >"$T/t/docs/note"
must cp -a "$T/t/d" "$T/before/"
check "take a snapshot" pvol snapshot t@one
s=$T/t/.zfs/snapshot/one

rm "$T"/t/d/f1? "$T/t/d/soft"
echo new >"$T/t/d/f2"
mv "$T/t/d/f3" "$T/t/d/moved"
printf changed | dd of="$T/t/d/large" bs=1 seek=1000000 conv=notrunc status=none
echo later >"$T/t/d/added"

check "the snapshot is seen below .zfs/snapshot" test -d "$s/d"
check ".zfs is not listed in its parent" not grep -qx .zfs <(ls -A "$T/t")
check "diff -r: the snapshot holds the old state" diff -r --no-dereference "$T/before/d" "$s/d"
check "all attributes in the snapshot" python3 "$TESTS/e2e/same.py" "$T/before/d" "$s/d" ${ROOT:+owner}
check "diff between snapshot and live tree sees the change" not diff -rq "$s/d" "$T/t/d"
write_in() { not touch "$s/d/x" && touch "$s/d/x" 2>&1 | grep -qi 'read-only'; }
check "a snapshot is read-only" write_in
check "inode numbers of snapshot and live file differ" test "$(stat -c %i "$s/d/f2")" != "$(stat -c %i "$T/t/d/f2")"
check "cp from the snapshot over the live file" cp "$s/d/f2" "$T/t/d/f2"
check "restored by cp" test "$(cat "$T/t/d/f2")" = "old 2"
check "cp of a large changed file" cp -a "$s/d/large" "$T/t/d/large"
check "restored the large file" cmp "$T/before/d/large" "$T/t/d/large"
mkdir "$T/tar"
tar_out() { tar -C "$s" --format=posix -cf - d | tar -C "$T/tar" -xpf - && diff -r --no-dereference "$T/before/d" "$T/tar/d"; }
check "tar out of the snapshot" tar_out
check "rsync -aH --delete from the snapshot onto the live tree" rsync -aH --delete "$s/d/" "$T/t/d/"
check "the live tree is the old one again" diff -r --no-dereference "$T/before/d" "$T/t/d"

listed() {
    pvol snapshots t --json >"$T/snaps.json" && python3 -c '
import json, sys
l = json.load(open(sys.argv[1]))
l = l["snapshots"] if isinstance(l, dict) else l
names = [s["name"] for s in l]
sys.exit(0 if any(n.split("@")[-1] == "one" for n in names) else "listed: %s" % names)' "$T/snaps.json"
}
check "pvol snapshots lists it" listed
check "a second one of the same name is refused" fails_with 1 'exist' pvol snapshot t@one
check "rollback to a snapshot that is not there is refused" fails_with '1|4' 'no.*snapshot|not found|does not exist|no such' \
    pvol rollback t@nothing

rm -rf "$T/t/d"
echo other >"$T/t/other"
exec 7<"$T/t/other"
check "rollback" pvol rollback t@one
check "rollback: the old tree is back" diff -r --no-dereference "$T/before/d" "$T/t/d"
check "rollback: what came later is gone" not test -e "$T/t/other"
check "rollback: the child dataset is untouched" grep -qx child "$T/t/docs/note"
check "a file that was open and is gone is an error, not a hang" not timeout 20 cat <&7
exec 7<&-
check "writing goes on after rollback" cp -a "$T/before/d" "$T/t/again"

check "recursive snapshot" pvol snapshot -r t@two
check "the child's snapshot" grep -qx child "$T/t/docs/.zfs/snapshot/two/note"
# Numbers of objsets grow with every snapshot; none may be taken for the number of a node.
many() {
    local i
    for i in $(seq 60); do pvol snapshot "t@many$i" || return 1; done
    [ "$(ls -lU "$T/t/.zfs/snapshot" | grep -c '^d')" -ge 60 ] && test -d "$T/t/.zfs/snapshot/many60/again"
}
check "many snapshots are listed" many
check "close with snapshots" pvol close t
check "open with snapshots" open_volume t
check "snapshots are there again" diff -r --no-dereference "$T/before/d" "$T/t/.zfs/snapshot/one/d"
check "close" pvol close t
