#!/usr/bin/env bash
# Make the virtual environment and install mailsrv into it: tools/venv.sh PYTHON FOLDER [DEPENDENCY-GROUP...]
# The install is editable in compat mode, because the default editable mode hides the twistd plugin.
set -euo pipefail
python=${1?python} venv=${2:?folder}
shift 2

if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "mailsrv needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
fi
# One that was left half made has a Python without pip.
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "Python's venv module is missing. Install it and try again:" >&2
        echo "    apt-get install python3-venv" >&2
        exit 1
    fi
    echo "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

pip() { "$venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check "$@"; }
# The network may fail once.
twice() { "$@" || { echo "failed, once more in 5 s: $*" >&2; sleep 5; "$@"; }; }

# Dependency groups need pip 25.1, and Python 3.11 brings an older one.
if ! "$venv/bin/python" -c 'import sys, pip; sys.exit(tuple(int(n) for n in pip.__version__.split(".")[:2]) < (25, 1))'; then
    twice pip install --upgrade 'pip>=25.1'
fi
groups=()
for group in "$@"; do groups+=(--group "$group"); done
echo "installing mailsrv and what it needs into $venv"
twice pip install --config-settings editable_mode=compat -e . "${groups[@]}"
