"""What result codes mean to us (RFC 4511 4.1.9): a wrong password, a server that cannot, a request that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from ldap3.core.results import RESULT_CODES

from mailsrv.directory.ldap.messages import Outcome
from mailsrv.directory.ldap.trouble import NoSuchEntry, RequestTrouble, ServerTrouble

# RFC 4511 4.1.9
SUCCESS, _SIZE_LIMIT = 0, 4
_CONSTRAINT, _NO_SUCH_OBJECT, _INAPPROPRIATE, _INVALID, _UNWILLING = 19, 32, 48, 49, 53
_SERVER_CANNOT = frozenset({1, 2, 7, 8, 13, 51, 52, 80})
# How 389 Directory Server and FreeIPA say in words, beside "unwilling", that an account is shut.
_SHUT = ("inactivated", "locked", "too many failed logins")


@frozen
class BindOutcome:
    """What a server said to a name and a password."""

    is_right: bool
    reason: str = ""
    """For the log, where it is not."""


def as_mapping(outcome: Outcome) -> Mapping[str, Any]:
    """As ldap3 has it."""
    description = RESULT_CODES.get(outcome.code, "unknown")
    return {"result": outcome.code, "description": description, "message": outcome.message}


def check_search(outcome: Outcome, base: str, *, is_full: bool = False) -> None:
    """Raises ServerTrouble or RequestTrouble for a search that did not go well.

    ``is_full``: there are as many entries as were asked for, and may be more. Where the server's own limit is lower, a
    part of a list, or of somebody's groups, would pass for the whole.
    """
    if outcome.code == SUCCESS or (outcome.code == _SIZE_LIMIT and is_full):
        return
    if outcome.code == _NO_SUCH_OBJECT:
        raise NoSuchEntry(f"there is no entry {base!r}: {describe(as_mapping(outcome))}")
    if outcome.code in _SERVER_CANNOT:
        raise ServerTrouble(describe(as_mapping(outcome)))
    raise RequestTrouble(f"the search below {base!r} failed: {describe(as_mapping(outcome))}")


def bind_outcome(result: Mapping[str, Any]) -> BindOutcome:
    """What the answer to a bind says of the password. Raises ServerTrouble or RequestTrouble where it says nothing.

    What may be about the one entry (a referral, "unwilling") is no reason to leave the server alone: whoever tries that
    user's password again and again would shut it for everybody.
    """
    code, message = result["result"], str(result.get("message") or "")
    if code == SUCCESS:
        return BindOutcome(True)
    # 389 Directory Server says "constraint" after too many failures.
    is_shut = code == _UNWILLING and any(word in message.lower() for word in _SHUT)
    if code in (_INVALID, _NO_SUCH_OBJECT, _INAPPROPRIATE, _CONSTRAINT) or is_shut:
        return BindOutcome(False, _active_directory_reason(message) or describe(result))
    kind = ServerTrouble if code in _SERVER_CANNOT else RequestTrouble
    raise kind(f"a bind is answered with {describe(result)}")


# MS-ADTS: the "data" of the diagnostic message.
_REASONS = {
    "525": "unknown user",
    "52e": "wrong password",
    "530": "may not log in at this time",
    "531": "may not log in from this workstation",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password must be changed first",
    "775": "the account is locked",
}


def _active_directory_reason(message: str) -> str:
    _, found, rest = message.partition(", data ")
    return _REASONS.get(rest.partition(",")[0].strip().lower(), "") if found else ""


def describe(result: Mapping[str, Any]) -> str:
    """For the log: what the server sent is in ASCII and cut."""
    message = str(result.get("message") or "").strip().rstrip("\0")
    text = f"{result['description']} ({result['result']})"
    return f"{text}: {message[:200]!a}" if message else text
