#!/bin/bash
# Makes the golden LUKS2 headers in this folder with cryptsetup(8) (2.6.1 made those that are checked in).
# Random bytes that no key slot uses are zeroed, so that the files stay small.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
printf 'golden passphrase' >"$work/pw"
printf 'second passphrase' >"$work/pw2"

# format NAME USED-BYTES OPTION...
format() {
    local image=$work/$1.img used=$2; shift 2
    truncate -s 17M "$image"
    cryptsetup luksFormat --batch-mode --type luks2 --key-file "$work/pw" "$@" "$image"
}
pack() {
    local image=$work/$1.img used=$2
    dd if=/dev/zero of="$image" bs=4096 seek=$((used / 4096)) count=$(((16777216 - used) / 4096)) conv=notrunc status=none
    cryptsetup open --test-passphrase --key-file "$work/pw" "$image"
    xz -9 -c "$image" >"luks2-$1.img.xz"
    cryptsetup luksDump --dump-volume-key --batch-mode --key-file "$work/pw" "$image" |
        sed -n '/MK dump/,$p' | sed 's/MK dump:\|Volume key://' | tr -dc '0-9a-f' >"luks2-$1.key"
}
slot=131072 # bytes of a key slot's area for a key of 256 bits; 258048 for 512

format pbkdf2-256-512 0 --key-size 256 --sector-size 512 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --uuid 11111111-2222-4333-8444-555555555551 --label golden
pack pbkdf2-256-512 $((32768 + slot))

format argon2id-512-4096 0 --key-size 512 --sector-size 4096 --pbkdf argon2id --pbkdf-memory 1024 \
    --pbkdf-parallel 2 --pbkdf-force-iterations 4 --uuid 11111111-2222-4333-8444-555555555552
pack argon2id-512-4096 $((32768 + 258048))

format argon2i-two-slots 0 --key-size 256 --sector-size 4096 --pbkdf argon2i --pbkdf-memory 512 \
    --pbkdf-parallel 1 --pbkdf-force-iterations 4 --uuid 11111111-2222-4333-8444-555555555553
cryptsetup luksAddKey --batch-mode --key-file "$work/pw" --pbkdf pbkdf2 --hash sha512 \
    --pbkdf-force-iterations 1000 "$work/argon2i-two-slots.img" "$work/pw2"
printf '{"type":"unknown-to-pvol","keyslots":["1"],"kept":[1,{"deep":"value"}]}' >"$work/token"
cryptsetup token import --json-file "$work/token" "$work/argon2i-two-slots.img"
pack argon2i-two-slots $((32768 + 2 * slot))
