"""What can be adjusted about signing mail."""

from __future__ import annotations

import enum
import re
from typing import Any

import attrs
from attrs import frozen

from mailsrv.setting import setting

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")


class Canonicalization(enum.Enum):
    """How much a signature lets a message change on its way (RFC 6376 3.4)."""

    RELAXED = "relaxed"
    """White space and the folding of fields."""
    SIMPLE = "simple"
    """Nothing but empty lines at the end."""


def _field_names(_: Any, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    for name in value:
        # ";" ends a tag of the signature and ":" a name within h= (RFC 6376 3.5).
        if not _FIELD_NAME.fullmatch(name) or ";" in name:
            raise ValueError(f"{name!r} is not the name of a header field")
        if name.lower() in {"dkim-signature", "return-path", "received"}:
            raise ValueError(f"{name} must not be signed (RFC 6376 5.4)")


def _from_is_signed(instance: Any, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    if "from" not in {name.lower() for name in value}:
        raise ValueError("From has to be among them (RFC 6376 5.4)")


@frozen
class DkimSettings:
    """DKIM signatures on what our users and domains send (RFC 6376)."""

    key_dir: str = setting("", "Folder of the signing keys; empty: dkim in state_dir.")
    header_canonicalization: Canonicalization = setting(
        Canonicalization.RELAXED, "What signatures forgive in header fields: relaxed (white space, folding) or simple."
    )
    body_canonicalization: Canonicalization = setting(
        Canonicalization.RELAXED, "What signatures forgive in the body: relaxed (white space) or simple."
    )
    oversigned_fields: tuple[str, ...] = setting(
        (
            "From",
            "To",
            "Cc",
            "Subject",
            "Date",
            "Reply-To",
            "Message-ID",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
            "In-Reply-To",
            "References",
        ),
        "Header fields that are signed in such a way that nobody can add another one later. From is needed.",
        check=[_field_names, _from_is_signed],
    )
    signed_fields: tuple[str, ...] = setting(
        (
            "Sender",
            "Resent-Date",
            "Resent-From",
            "Resent-To",
            "Resent-Cc",
            "Resent-Message-ID",
            "List-Id",
            "List-Help",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
            "List-Subscribe",
            "List-Post",
            "List-Owner",
            "List-Archive",
        ),
        "Header fields that are signed where a message has them.",
        check=_field_names,
    )
    valid_seconds: int = setting(
        0, "How long a signature says it is valid (x=); 0: it does not say.", at_least=0, unit="seconds"
    )
