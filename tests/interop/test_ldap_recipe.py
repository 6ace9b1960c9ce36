"""The manual's way to an OpenLDAP server from nothing, typed line by line, with folders and a network of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.recipe import ROOT, section

# What a machine has: what systemd does is done by hand, packages are installed already. Nothing of it is seen outside.
MACHINE = """\
set -e
mount --make-rprivate /
ip link set lo up 2>/dev/null || ifconfig lo up
cp -a /etc "$FOLDER/etc"
mount --bind "$FOLDER/etc" /etc
rm -rf /etc/mailsrv /etc/ldap/slapd.d /etc/ldap/tls
mkdir -p /etc/ldap/slapd.d
mount -t tmpfs tmpfs /var/lib/ldap
mount -t tmpfs tmpfs /run
install -d -o openldap -g openldap /run/slapd
apt-get() { echo "installed: $*"; }
systemctl() {
    if [ "$1" = start ]; then
        slapd -u openldap -g openldap -F /etc/ldap/slapd.d -h "ldap:/// ldapi:///" -d 0 &
        SLAPD=$!
        for _ in $(seq 100); do
            ldapwhoami -Q -Y EXTERNAL -H ldapi:/// >/dev/null 2>&1 && return
            sleep 0.1
        done
        return 1
    fi
}
trap '[ -z "$SLAPD" ] || kill "$SLAPD"' EXIT
export PATH="$BIN:$PATH:/usr/sbin:/sbin" MAILSRV_CONFIG=/etc/mailsrv/mailsrv.toml
cd "$ROOT"
"""
CONFIG = """\
hostname = "mail.example.test"
state_dir = "{folder}/state"

[auth]
default_domain = "example.test"

[[domain]]
name = "example.test"

[[listen]]
service = "mx"
endpoint = "tcp:25"

[store]
type = "memory"
path = "mail/{{domain}}/{{local}}"

"""


AFTERWARDS = """\
echo "a password for alice" | mailsrvctl ldap check alice --password-stdin
! ldapwhoami -x -H ldap://localhost -D uid=alice,ou=people,dc=example,dc=test -w "a password for alice"
ldapsearch -LLL -Q -Y EXTERNAL -H ldapi:/// -b ou=people,dc=example,dc=test uid=bob memberOf
ldapsearch -LLL -Q -Y EXTERNAL -H ldapi:/// -b ou=people,dc=example,dc=test uid=alice userPassword
"""


@pytest.mark.slow
def test_every_line_of_the_recipe_works(tmp_path: Path) -> None:
    server, entries, table, commands = section("ldap.rst", "An OpenLDAP server from nothing")
    config = CONFIG.format(folder=tmp_path) + table
    written = f"cat > /etc/mailsrv/mailsrv.toml <<'END'\n{config}\nEND"
    script = "\n".join((MACHINE, "set -x", server, entries, written, commands, AFTERWARDS))
    environment = dict(os.environ, FOLDER=str(tmp_path), BIN=str(Path(sys.executable).parent), ROOT=str(ROOT))
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, told
    assert "alice@example.test, bob@example.test" in done.stdout, told
    assert "memberOf: cn=support,ou=groups,dc=example,dc=test" in done.stdout, told
    # Kept as a hash ("{SSHA}" in base64), and never sent in the clear.
    assert "userPassword:: e1NTSEF9" in done.stdout, told
    assert "onfidentiality required" in done.stderr, told
