#!/usr/bin/env bash
# Run the benchmarks: tools/bench.sh BIN. They measure; they judge nothing.
set -euo pipefail
exec "${1:?bin folder of the virtual environment}/python" -m benchmarks
