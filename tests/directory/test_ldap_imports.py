"""What nobody needs who has no users in LDAP."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["mailsrv.config.schema", "mailsrv.app.build"])
def test_settings_and_the_server_do_without_ldap3(module):
    code = f"import sys, {module}; sys.exit('ldap3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
