"""Quoted strings within larger expressions (RFC 5322 3.2.4)."""

from __future__ import annotations

QUOTED_TEXT = rb'[^"\\]*+(?:\\.[^"\\]*+)*'
"""What may stand between the quotes. Compile it with DOTALL where quoted pairs may hold line feeds. Its group is not
possessive, for Python 3.11.0 to 3.11.4 match such groups wrongly; nothing in it can be taken in two ways anyhow."""
