#!/usr/bin/env bash
# File systems cut off in the middle of their work: tools/crashlab.sh BIN [OPTION…]. Needs root and loop devices
# (without them it says that it was skipped); see tests/crashlab/README.rst.
set -euo pipefail
bin=${1:?bin folder of the virtual environment}
shift
exec "$bin/python" -m tests.crashlab.lab "$@"
