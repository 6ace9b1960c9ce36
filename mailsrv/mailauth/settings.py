"""What can be adjusted about signing mail."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class DkimSettings:
    """DKIM signatures on what our users and domains send (RFC 6376)."""

    key_dir: str = field(
        default="",
        metadata={"help": "Folder of the signing keys; empty: dkim in state_dir."},
    )
