"""What nobody needs who has no users in LDAP."""

from __future__ import annotations

import subprocess
import sys


def test_settings_and_the_server_do_without_ldap3():
    code = "import sys, mailsrv.config.schema, mailsrv.app.build; sys.exit('ldap3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
