"""What is asked of an issuer of tokens, and how: its documents by GET, one token at a time by POST.

Who has HTTPS hands it in; everything here can be told apart from it and tested without.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred


class IssuerFailed(Exception):
    """The issuer did not answer, or not with what it should; the text is for the log and holds nothing of a body."""


@frozen
class WebAnswer:
    """``media_type`` in lower case without parameters."""

    status: int
    media_type: str
    body: bytes = field(repr=False)


class IssuerWeb(Protocol):
    """Both ask with certificates verified and answers bounded, follow no redirect, and may fail with anything."""

    def read_file(self, path: str) -> Deferred[bytes]:
        """A small file of ours, read in a thread."""

    def get(self, uri: str, *, seconds: float) -> Deferred[WebAnswer]:
        """A document, within so many seconds."""

    def post_form(self, uri: str, form: str, *, authorization: str, seconds: float) -> Deferred[WebAnswer]:
        """The answer to ``application/x-www-form-urlencoded`` fields, within so many seconds."""


def read_object(answer: WebAnswer, *, any_media_type: bool = False) -> dict[str, Any]:
    """The JSON object of a good answer; raises IssuerFailed."""
    if answer.status != 200:
        raise IssuerFailed(f"answer {answer.status}")
    if answer.media_type != "application/json" and not any_media_type:
        raise IssuerFailed("an answer that is no application/json")
    return parse_object(answer.body)


def parse_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object without NaN and Infinity, which JSON does not have either; raises IssuerFailed."""
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        # Without the cause: its text would hold some of the document.
        raise IssuerFailed("no JSON") from None
    if not isinstance(found, dict):
        raise IssuerFailed("no JSON object")
    return found


def _no_number(_name: str) -> None:
    raise ValueError
