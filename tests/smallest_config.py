"""The smallest configuration a server starts with, for tests that are about something else.

Settings of the first level are put before it, tables behind it.
"""

from __future__ import annotations

SMALLEST = """\
hostname = "mail.example.test"
state_dir = "state"
[[listen]]
service = "lmtp"
endpoint = "unix:lmtp.sock"
[[domain]]
name = "example.test"
[[directory]]
type = "passwd-file"
path = "users"
"""
