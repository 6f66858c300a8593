#!/bin/bash
# tests/cli/usage.sh BUILDDIR: help, usage errors, exit codes; the manual and the completion know every command.
# shellcheck disable=SC2154  # variables of lib.sh
. "$(dirname "$0")/../lib.sh"

# The manual and the completion: of the source tree, or of the installation.
find_file() {
    local f
    for f in "$@"; do
        if [ -r "$f" ]; then echo "$f"; return; fi
        if [ -r "$f.gz" ]; then gzip -dc "$f.gz" >"$T/${f##*/}"; echo "$T/${f##*/}"; return; fi
    done
    return 1
}
must find_file "$TESTS/../man/pvol.1" "$BIN/../share/man/man1/pvol.1"
must find_file "$TESTS/../completions/pvol" "$BIN/../share/bash-completion/completions/pvol"
man_page=$(find_file "$TESTS/../man/pvol.1" "$BIN/../share/man/man1/pvol.1")
completion=$(find_file "$TESTS/../completions/pvol" "$BIN/../share/bash-completion/completions/pvol")

# The program itself says what there is.
mapfile -t commands < <(pvol help | sed -n 's/^  \([a-z][a-z]*\)  *[a-zA-Z].*/\1/p')
check "help lists the commands" test ${#commands[@]} -ge 19

help_of() {
    pvol help "$1" >"$T/help1" && pvol "$1" --help >"$T/help2" && cmp "$T/help1" "$T/help2" &&
        grep -q "^usage: pvol $1" "$T/help1" && [ "$(wc -l <"$T/help1")" -ge 6 ] &&
        not awk 'length($0) > 96 { exit 0 } END { exit 1 }' "$T/help1"
}
in_man() { grep -Eq "^\.It Cm $1( |\$)" "$man_page"; }
in_completion() { grep -Eq "(^|[ |=(])$1(\)| |\$|')" "$completion"; }
options_of() { pvol help "$1" | sed -n 's/^  *\(-[a-zA-Z], \)\{0,1\}--\([a-z-]*\).*/\2/p'; }
options_known() {
    local o missing=0
    for o in $(options_of "$1"); do
        grep -Eq "Fl (k , )?(. , )?-${o//-/.}( |\$)|, -${o//-/.}( |\$)|-$o\b" "$man_page" ||
            { echo "--$o of $1 is not in the manual"; missing=1; }
        case $o in help | json | progress) ;; *)
            grep -q -- "--$o\b" "$completion" || { echo "--$o of $1 is not in the completion"; missing=1; } ;;
        esac
    done
    return $missing
}
for c in "${commands[@]}"; do
    check "$c: help" help_of "$c"
    check "$c: in the manual" in_man "$c"
    check "$c: in the completion" in_completion "$c"
    check "$c: options in manual and completion" options_known "$c"
done
check "the tests above would notice a missing command" not in_man frobnicate
check "the tests above would notice a missing word" not in_completion frobnicate
check "the manual renders without warnings" \
    bash -c 'out=$(man --warnings -l "$1" 2>&1 >/dev/null) && [ -z "$out" ] || { echo "$out"; exit 1; }' - "$man_page"

completes() {
    bash -c 'source "$1"; COMP_WORDS=(pvol "$2"); COMP_CWORD=1; _pvol; printf "%s\n" "${COMPREPLY[@]}"' - \
        "$completion" "$1" | grep -qx -- "$2"
}
check "completion of a command" completes snapsh snapshots
option_completes() {
    bash -c 'source "$1"; COMP_WORDS=(pvol create --pass); COMP_CWORD=2; _pvol; printf "%s\n" "${COMPREPLY[@]}"' - \
        "$completion" | grep -qx -- --passphrase-file
}
check "completion of an option" option_completes

# usage errors: exit code 2, what is wrong, and how it goes; nothing is started for them
usage() { check "usage: $1" fails_with 2 "$2" pvol "${@:3}"; }
usage "no such command" 'frobnicate: no such command' frobnicate
usage "unknown option before a command" 'unknown option before a command' --nonsense list
usage "unknown option" 'create: unknown option --nonsense' create --nonsense T
usage "unknown short option" 'create: unknown option -Z' create -Z T
usage "an abbreviation is not taken for an option" 'unknown option --siz' create --siz 1G T
usage "name missing" 'create: the name of the volume is missing' create
usage "too many names" 'create: one argument too many: U' create T U
usage "no size" 'size 3X: not a size' create T --size 3X
usage "an option's argument is missing" 'size needs an argument' create T --size
usage "a flag takes no argument" 'full takes no argument' create T --full=yes
usage "unknown kind of key" 'unknown kind of key' create T --key password
usage "a passphrase is no argument" 'unknown kind of key' create T --key passphrase:secret
usage "key file without path" 'which key file' create T --key keyfile:
usage "tokens are for a later version" 'tpm2 is not supported by this version' create T --key tpm2
usage "devices are for a later version" 'device: .* not supported by this version' create T --device /dev/null
usage "ZVOLs are for a later version" 'zvol: .* not supported by this version' create T --zvol a/b
usage "other formats are for a later version" 'geli is not supported by this version' create T --format geli
usage "as-me is for a later version" 'as-me: .* not supported by this version' open T --as-me
usage "property without value" 'name=value' create T -O compression
usage "property twice" 'given twice' create T -O atime=on -O atime=off
usage "passphrase file without a passphrase" 'no --key passphrase' create T --key "keyfile:$PASS" --passphrase-file "$PASS"
usage "a file system takes no size" 'takes only -O' create T/docs --size 1G
usage "no such key derivation" 'argon2id or pbkdf2' create T --pbkdf scrypt
usage "open what" 'open: the volume is missing' open
usage "slot out of range" 'slot is a number' open T --slot 99
usage "close what" 'close: name the volumes' close
usage "close all or some" 'close: name the volumes' close --all T
usage "rollback where" 'rollback: the snapshot is missing' rollback T
usage "key what" 'key: say what' key
usage "key verb" 'no such thing to do' key frob T
usage "key remove which" 'slot is missing' key remove T
usage "header verb" 'say backup or restore' header save T f
usage "header operands" 'an argument is missing' header backup T
usage "erase needs a yes" 'without a terminal to confirm on, --yes is needed' erase T
usage "json where it means nothing" '--json is not for this command' close T --json
usage "json before a command where it means nothing" '--json is not for this command' --json create T
usage "unknown progress" 'auto, json or none' list --progress=loud
usage "help of what" 'no such command' help frobnicate
check "usage errors start no keeper" test ! -e "$PVOL_RUNTIME/control"

two_lines() {
    pvol create --nonsense T 2>"$T/e"
    [ "$(wc -l <"$T/e")" = 2 ] && sed -n 1p "$T/e" | grep -q '^pvol: create: ' && sed -n 2p "$T/e" | grep -q '^  '
}
check "an error is one line and its remedy another" two_lines
full_disk() {
    [ -w /dev/full ] || return 0
    pvol help >/dev/full 2>"$T/e"
    [ $? = 1 ] && grep -q 'cannot write' "$T/e"
}
check "standard output that is full is an error" full_disk
check "version" test "$(pvol version)" = "$(pvol --version)"
check "version as JSON" python3 -c 'import json,sys; assert json.loads(sys.argv[1])["protocol"] == 1' "$(pvol version --json)"

# with a keeper
check "no volumes yet" bash -c '"$1" </dev/null | grep -q "No volumes yet"' - "$PVOL"
check "no volumes yet, as JSON" bash -c '[ "$("$1" --json </dev/null)" = "{\"volumes\":[]}" ]' - "$PVOL"
no_volume() { check "no such volume: $1" fails_with 4 'no volume of this name' pvol "$@"; }
no_volume open nothing --passphrase-file "$PASS"
no_volume close nothing
no_volume status nothing
no_volume restart nothing
no_volume info nothing
no_volume snapshot nothing@s
no_volume snapshots nothing
no_volume rollback nothing@s
no_volume scrub nothing
no_volume list nothing
no_volume key list nothing
no_volume header backup nothing "$T/backup"
check "a failed backup leaves no file" test ! -e "$T/backup"
no_volume erase nothing --yes
no_volume forget nothing
no_volume zdb nothing
check "a passphrase file that is absent" fails_with 1 'absent' pvol create T --passphrase-file "$T/absent"
check "an empty passphrase file" fails_with 1 'empty' pvol create T --passphrase-file /dev/null
check "no terminal to ask on" setsid -w bash -c '"$1" create T </dev/null 2>"$2"; [ $? = 1 ] &&
    grep -q passphrase-file "$2"' - "$PVOL" "$T/e"
check "nothing was made by these" bash -c '[ "$("$1" --json </dev/null)" = "{\"volumes\":[]}" ]' - "$PVOL"
