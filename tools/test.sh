#!/usr/bin/env bash
# Everything CI runs: tools/test.sh BIN. Nothing is skipped: real mail clients and DNS servers that the
# interoperability tests drive are installed where this may be done, otherwise the one command is printed and we stop.
# As root, or with a sudo that asks for no password: Postfix, Exim and OpenSMTPD begin as root.
set -euo pipefail
bin=${1:?bin folder of the virtual environment}
# Modules and rewritten tests are compiled once, for this process and the hundreds it starts.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=${bin%/bin}/pycache
[[ $PYTHONPYCACHEPREFIX = /* ]] || PYTHONPYCACHEPREFIX=$PWD/$PYTHONPYCACHEPREFIX
step() { printf '== %s\n' "$*"; "$@"; }
# What needs the network may fail once.
twice() { "$@" || { printf '== failed, once more in 5 s: %s\n' "$*" >&2; sleep 5; "$@"; }; }

if [ "$(id -u)" = 0 ]; then
    as_root=()
elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "The tests with real mail servers need root: run 'sudo make test', or 'make check', which leaves them out." >&2
    exit 1
fi

PATH=$PATH:/usr/sbin:/sbin # servers are there
declare -A package_of=([curl]=curl [swaks]=swaks [mbsync]=isync [mutt]=mutt [fetchmail]=fetchmail
    [msmtp]=msmtp [node]=nodejs [npm]=npm [openssl]=openssl [unbound]=unbound [knotd]=knot
    [systemd-analyze]=systemd [unshare]=util-linux [slapd]=slapd [samba]=samba-ad-dc [ldapadd]=ldap-utils [dscreate]=389-ds-base
    [krb5kdc]=krb5-kdc [kadmin.local]=krb5-admin-server [kinit]=krb5-user
    [krb5-config]=libkrb5-dev [gcc]=gcc)
missing=()
[ -e /usr/share/samba/setup/provision.ldif ] || missing+=(samba-ad-provision) # what samba-tool makes a domain of
perl -MNet::SSLeay -e 1 2>/dev/null || missing+=(libnet-ssleay-perl) # swaks needs it for TLS
compgen -G '/usr/lib/*/sasl2/libgssapiv2.so' >/dev/null || missing+=(libsasl2-modules-gssapi-mit) # mbsync's Kerberos
"$bin/python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    missing+=(python3-dev) # the library for Kerberos is compiled
for program in "${!package_of[@]}"; do
    command -v "$program" >/dev/null 2>&1 || missing+=("${package_of[$program]}")
done

# Packages of servers start them, and let them start with the machine; the tests want the programs only.
policy=/usr/sbin/policy-rc.d
start_no_service() {
    trap start_services_again EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
}
start_services_again() {
    trap - EXIT
    "${as_root[@]}" rm -f "$policy"
}
install_packages() {
    twice "${as_root[@]}" apt-get update -qq </dev/null
    twice "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Options::=--force-confold "$@" </dev/null >/dev/null
}
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "The interoperability tests need the programs of these Debian packages: ${missing[*]}." >&2
        exit 1
    fi
    echo "== installing ${missing[*]}"
    if [ -e "$policy" ]; then
        install_packages "${missing[@]}" # the administrator's own policy stands
    else
        start_no_service
        install_packages "${missing[@]}"
        start_services_again
    fi
    for package in "${missing[@]}"; do
        if [[ $package =~ ^(unbound|knot|slapd|krb5-kdc|krb5-admin-server)$ ]] && command -v systemctl >/dev/null 2>&1; then
            "${as_root[@]}" systemctl --quiet disable "$package.service" >/dev/null 2>&1 || true
        fi
        if [ "$package" = samba-ad-dc ] && command -v systemctl >/dev/null 2>&1; then
            "${as_root[@]}" systemctl --quiet disable smbd nmbd winbind samba-ad-dc >/dev/null 2>&1 || true
        fi
    done
fi
"$bin/python" -c 'import gssapi' 2>/dev/null || twice "$bin/python" -m pip --quiet --quiet install --group kerberos

step "$bin/ruff" check --quiet .
step "$bin/ruff" format --quiet --check .
step "$bin/mypy" --no-error-summary
step "$bin/lint-imports" --no-cache --no-logo
# Each test has a time limit of its own (pyproject.toml); this one is for whatever else could hang.
if [ "$(id -u)" = 0 ]; then
    step timeout --foreground -k 10 1800 "$bin/pytest" -q -n 3 --dist worksteal --durations=30 --durations-min=5
else
    # What root writes into the checkout is given back.
    trap 'sudo -n chown -R --from=root "$(id -u):$(id -g)" .' EXIT
    step sudo -n env "PATH=$PATH" "PYTHONPYCACHEPREFIX=$PYTHONPYCACHEPREFIX" timeout --foreground -k 10 1800 "$bin/pytest" -q -n 3 --dist worksteal --durations=30 --durations-min=5
fi
step "$bin/sphinx-build" -q -W --keep-going -b html docs docs/_build/html
