#!/usr/bin/env bash
# The fast part of the tests: tools/check.sh BIN. Style, types, layers, and all tests that are not marked slow or interop.
set -euo pipefail
bin=${1:?bin folder of the virtual environment}
# Modules and rewritten tests are compiled once, for this process and the hundreds it starts.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=${bin%/bin}/pycache
[[ $PYTHONPYCACHEPREFIX = /* ]] || PYTHONPYCACHEPREFIX=$PWD/$PYTHONPYCACHEPREFIX
step() { printf '== %s\n' "$*"; "$@"; }

step "$bin/ruff" check --quiet .
step "$bin/ruff" format --quiet --check .
step "$bin/mypy" --no-error-summary
step "$bin/lint-imports" --no-cache --no-logo
# Each test has a time limit of its own (pyproject.toml); this one is for whatever else could hang.
step timeout --foreground -k 10 600 "$bin/pytest" -q -n 2 -m 'not slow and not interop' --hypothesis-profile=quick
