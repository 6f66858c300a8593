#!/bin/bash
# LUKS2 as cryptsetup sees it, both ways: it reads our headers and adds keys to them; we read its headers, of every
# key derivation, key size and sector size; and our pool opens below a header that cryptsetup wrote.
. "$(dirname "$0")/../lib.sh"
NEW=$T/new
printf 'second passphrase' >"$NEW"
csquiet=(--batch-mode)

SIZE=512M; must new_volume t
head -c 3000000 /dev/urandom >"$T/t/data"
must cp "$T/t/data" "$T/data"
must pvol close t
c=$(container t)

check "cryptsetup isLuks" cryptsetup isLuks --type luks2 "$c"
dump() { cryptsetup luksDump "$c" >"$T/dump" 2>&1 && grep -q 'aes-xts-plain64' "$T/dump" && grep -q 'sector: 4096' "$T/dump"; }
check "cryptsetup luksDump: cipher and sector size" dump
check "cryptsetup luksDump warns of nothing" not grep -qiE 'warning|invalid|broken' "$T/dump"
test_key() { cryptsetup open --test-passphrase --type luks2 --key-file "$1" "$2"; }
check "cryptsetup --test-passphrase" test_key "$PASS" "$c"
check "cryptsetup refuses the wrong one" not test_key "$WRONG" "$c"
check "pvol refuses the wrong one" fails_with 3 'passphrase|key' pvol open t --passphrase-file "$WRONG"
check "cryptsetup luksAddKey" cryptsetup luksAddKey "${csquiet[@]}" --key-file "$PASS" --pbkdf argon2id \
    --pbkdf-memory 32768 --pbkdf-parallel 1 --pbkdf-force-iterations 4 "$c" "$NEW"
check "pvol key test with cryptsetup's key" pvol key test t --passphrase-file "$NEW"
check "pvol opens with cryptsetup's key" pvol open t --passphrase-file "$NEW"
check "the data is right" cmp "$T/data" "$T/t/data"
must pvol close t
check "cryptsetup luksKillSlot" cryptsetup luksRemoveKey "${csquiet[@]}" "$c" "$NEW"
check "pvol refuses the removed key" fails_with 3 'passphrase|key' pvol key test t --passphrase-file "$NEW"
check "pvol opens with the first key" open_volume t
must pvol close t
check "cryptsetup luksChangeKey" cryptsetup luksChangeKey "${csquiet[@]}" --key-file "$PASS" --pbkdf pbkdf2 \
    --pbkdf-force-iterations 1000 "$c" "$NEW"
check "pvol key test after luksChangeKey" pvol key test t --passphrase-file "$NEW"
cp "$NEW" "$PASS"

for kdf in "argon2id --pbkdf-memory 32768 --pbkdf-parallel 1 --pbkdf-force-iterations 4" \
    "pbkdf2 --pbkdf-force-iterations 1000" "pbkdf2 --hash sha512 --pbkdf-force-iterations 1000"; do
    for shape in "512 4096" "256 512" "512 512"; do
        read -r bits sector <<<"$shape"
        name="${kdf%% *}$(grep -o 'sha512' <<<"$kdf") $bits-bit key, $sector-byte sectors"
        rm -f "$T/foreign"
        truncate -s 128M "$T/foreign"
        # shellcheck disable=SC2086
        if ! cryptsetup luksFormat "${csquiet[@]}" --type luks2 --cipher aes-xts-plain64 --key-size "$bits" --sector-size "$sector" \
            --pbkdf $kdf --key-file "$PASS" "$T/foreign" >"$T/err" 2>&1; then
            not_ok "cryptsetup formats: $name: $(cat "$T/err")"
            continue
        fi
        check "pvol key test on cryptsetup's header: $name" pvol key test "$T/foreign" --passphrase-file "$PASS"
    done
done
info() {
    pvol info "$T/foreign" --json >"$T/info" && python3 -c '
import json, sys
i = json.load(open(sys.argv[1]))
i = i.get("info", i)
assert i["format"] == "luks2" and i["sector_size"] == 512 and "aes-xts-plain64" in i["cipher"] and len(i["slots"]) == 1, i' "$T/info"
}
check "pvol info of cryptsetup's header" info
check "the wrong passphrase on cryptsetup's header" fails_with 3 'passphrase|key' pvol key test "$T/foreign" --passphrase-file "$WRONG"
check "a container without a pool is refused" fails_with '1|6' 'pool' pvol open "$T/foreign" --passphrase-file "$PASS" --at "$T/x"

# cryptsetup's header over our pool: the volume key goes from our header into one that cryptsetup makes.
swap() {
    local off
    cp --sparse=always "$c" "$T/swapped" &&
        cryptsetup luksDump "${csquiet[@]}" --dump-volume-key --volume-key-file "$T/vk" --key-file "$PASS" "$c" >/dev/null &&
        off=$(cryptsetup luksDump --dump-json-metadata "$c" |
            python3 -c 'import json, sys; print(int(json.load(sys.stdin)["segments"]["0"]["offset"]) // 512)') &&
        cryptsetup luksFormat "${csquiet[@]}" --type luks2 --cipher aes-xts-plain64 --key-size 512 --sector-size 4096 --offset "$off" \
            --volume-key-file "$T/vk" --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$WRONG" "$T/swapped"
}
check "cryptsetup writes a header over a copy" swap
must pvol forget t
check "pvol opens our pool below cryptsetup's header" pvol open "$T/swapped" --passphrase-file "$WRONG" --at "$T/swap"
check "the data below cryptsetup's header" cmp "$T/data" "$T/swap/data"
