"""Why a token is not taken."""

from __future__ import annotations


class TokenRefused(Exception):
    """The text is for the log; the client hears only that the token is not good."""
