"""Settings of one ``[[filter]]``; the order in the configuration is the order of asking."""

from __future__ import annotations

import enum

from attrs import frozen

from mailsrv.setting import setting


class OnFailure(enum.Enum):
    """What becomes of the mail when a filter is lost: it raises, does not answer in time, or answers nonsense."""

    DEFER = "defer"
    """Refuse for now (451 4.7.1); the peer tries again."""
    ACCEPT = "accept"
    """Go on as if the filter were not there; nothing it wanted to change is changed."""


@frozen
class FilterSettings:
    """One filter and how far it is trusted."""

    use: str = setting(
        "",
        "Name of a filter plugin, or package.module:object for a filter that is no plugin.",
        example="no-executables",
    )
    arguments: tuple[str, ...] = setting((), "Handed to filters that take arguments; see the filter's own description.")
    on_failure: OnFailure = setting(
        OnFailure.DEFER,
        "What to do when the filter raises or is late: defer the mail, or accept it without the filter.",
    )
    timeout_seconds: float = setting(
        30.0, "How long the filter may take in the phases before the content.", unit="seconds"
    )
    message_timeout_seconds: float = setting(60.0, "How long the filter may take over a whole message.", unit="seconds")
