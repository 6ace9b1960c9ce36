#!/usr/bin/env bash
# The fast part of the tests: tools/check.sh BIN. Style, types, layers, and all tests that are not marked slow or interop.
set -euo pipefail
bin=${1:?bin folder of the virtual environment}
step() { printf '== %s\n' "$*"; "$@"; }

step "$bin/ruff" check --quiet .
step "$bin/ruff" format --quiet --check .
step "$bin/mypy" --no-error-summary
step "$bin/lint-imports" --no-cache >/tmp/mailsrv-lint-imports.$$ 2>&1 || { cat /tmp/mailsrv-lint-imports.$$; rm -f /tmp/mailsrv-lint-imports.$$; exit 1; }
rm -f /tmp/mailsrv-lint-imports.$$
step "$bin/pytest" -q -n 2 -m 'not slow and not interop'
