#!/bin/bash
# tests/cli/terminal.sh BUILDDIR: pvol on a terminal (see terminal.py).
# shellcheck disable=SC2154  # variables of lib.sh
. "$(dirname "$0")/../lib.sh"
timeout 500 python3 "$TESTS/cli/terminal.py" "$PVOL" "$T" || failed=1
