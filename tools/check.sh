#!/usr/bin/env bash
# The fast part of the tests: tools/check.sh BIN. Style, types, layers, and all tests that are not marked slow or interop.
# Two processes with half of the tests each (each reads only its own half); types and layers are looked at meanwhile.
set -euo pipefail
bin=${1:?bin folder of the virtual environment}
# Modules and rewritten tests are compiled once, for this process and the hundreds it starts.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=${bin%/bin}/pycache
[[ $PYTHONPYCACHEPREFIX = /* ]] || PYTHONPYCACHEPREFIX=$PWD/$PYTHONPYCACHEPREFIX
step() { printf '== %s\n' "$*"; "$@"; }

# About half of the time. The other half is whatever else there is: a new folder is in it.
half=(tests/address tests/app tests/cli tests/journal tests/message tests/queue tests/relay tests/store tests/tls)

# What tests write is kept in memory where there is room: nobody waits for a disk (`make test` does).
memory=/dev/shm
[ -w $memory ] && [ "$(df --output=avail -k $memory | tail -n 1)" -gt 1000000 ] || memory=${TMPDIR:-/tmp}
scratch=$(mktemp -d "$memory/mailsrv-check.XXXXXX")
other=
trap '[ -z "$other" ] || kill "$other" 2>/dev/null || true; rm -rf "$scratch"' EXIT
# Each test has a time limit of its own (pyproject.toml); this one is for whatever else could hang.
# Plugins that no test here uses cost their share of each test.
quick=(timeout --foreground -k 10 600 "$bin/pytest" -q -p no:xdist -p no:logging -m 'not slow and not interop'
    --hypothesis-profile=quick)

step "$bin/ruff" check --quiet .
step "$bin/ruff" format --quiet --check .
"${quick[@]}" --basetemp="$scratch/other" "${half[@]/#/--ignore=}" >"$scratch/output" 2>&1 &
other=$!
step "$bin/mypy" --no-error-summary
step "$bin/lint-imports" --no-cache --no-logo
failed=0
step "${quick[@]}" --basetemp="$scratch/half" "${half[@]}" || failed=$?
echo "== the other half"
wait "$other" || failed=$?
other=
cat "$scratch/output"
exit "$failed"
