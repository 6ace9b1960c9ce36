#!/usr/bin/env bash
# Everything CI runs: tools/test.sh BIN. Nothing is skipped: real mail clients and DNS servers that the
# interoperability tests drive are installed where this may be done, otherwise the one command is printed and we stop.
set -euo pipefail
bin=${1:?bin folder of the virtual environment}
step() { printf '== %s\n' "$*"; "$@"; }

PATH=$PATH:/usr/sbin:/sbin # servers are there
declare -A package_of=([curl]=curl [swaks]=swaks [mbsync]=isync [mutt]=mutt [fetchmail]=fetchmail
    [msmtp]=msmtp [node]=nodejs [npm]=npm [openssl]=openssl [unbound]=unbound [knotd]=knot)
missing=()
perl -MNet::SSLeay -e 1 2>/dev/null || missing+=(libnet-ssleay-perl) # swaks needs it for TLS
for program in "${!package_of[@]}"; do
    command -v "$program" >/dev/null 2>&1 || missing+=("${package_of[$program]}")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ]; then sudo=(); else sudo=(sudo -n); fi
    if command -v apt-get >/dev/null 2>&1 && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
        echo "== installing ${missing[*]}"
        "${sudo[@]}" apt-get update -qq </dev/null
        DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends \
            -o Dpkg::Options::=--force-confold "${missing[@]}" </dev/null >/dev/null
    else
        echo "The interoperability tests need: ${missing[*]}. Install them and try again:" >&2
        echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
fi

step "$bin/ruff" check --quiet .
step "$bin/ruff" format --quiet --check .
step "$bin/mypy" --no-error-summary
step "$bin/lint-imports" --no-cache --no-logo
# Each test has a time limit of its own (pyproject.toml); this one is for whatever else could hang.
step timeout --foreground -k 10 1800 "$bin/pytest" -q -n 2
step "$bin/sphinx-build" -q -W --keep-going -b html docs docs/_build/html
