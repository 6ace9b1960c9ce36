"""Where the configuration file is when nobody says so."""

from __future__ import annotations

import os

ENVIRONMENT_VARIABLE = "MAILSRV_CONFIG"
SYSTEM_PATH = "/etc/mailsrv/mailsrv.toml"


def default_path() -> str:
    """``$MAILSRV_CONFIG``, then the system's place."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or SYSTEM_PATH
