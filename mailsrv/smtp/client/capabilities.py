"""What a server offers in its reply to EHLO or LHLO (RFC 5321 4.1.1.1, 4.2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

_SIZE_DIGITS = 20


@frozen
class Capabilities:
    """Keywords in upper case with their parameters. Those of before STARTTLS are worth nothing after it (R-TLS-2)."""

    keywords: Mapping[str, tuple[str, ...]] = field(factory=dict)
    is_extended: bool = True
    """False: only HELO was understood."""
    can_pipeline: bool = field(init=False)
    can_chunk: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Asked for every message.
        object.__setattr__(self, "can_pipeline", "PIPELINING" in self.keywords)
        object.__setattr__(self, "can_chunk", "CHUNKING" in self.keywords)

    def offers(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def size_limit(self) -> int | None:
        """SIZE (RFC 1870 3): octets of the largest message; None where none is told."""
        parameters = self.keywords.get("SIZE", ())
        number = _number(parameters[0]) if parameters else None
        return number or None

    @property
    def mechanisms(self) -> frozenset[str]:
        """AUTH (RFC 4954 3)."""
        return frozenset(word.upper() for word in self.keywords.get("AUTH", ()))

    @property
    def recipient_limit(self) -> int | None:
        """LIMITS RCPTMAX (RFC 9422)."""
        return self._limit("RCPTMAX")

    @property
    def message_limit(self) -> int | None:
        """LIMITS MAILMAX (RFC 9422): transactions of one connection."""
        return self._limit("MAILMAX")

    @property
    def shortest_delivery_time(self) -> int:
        """DELIVERBY (RFC 2852 3): the least by-time the server takes for mode R; 0 where it does not say."""
        parameters = self.keywords.get("DELIVERBY", ())
        return (_number(parameters[0]) if parameters else None) or 0

    def _limit(self, name: str) -> int | None:
        for parameter in self.keywords.get("LIMITS", ()):
            key, _, value = parameter.partition("=")
            if key.upper() == name:
                return _number(value) or None
        return None


NO_CAPABILITIES = Capabilities(is_extended=False)


def parse_capabilities(lines: Sequence[str]) -> Capabilities:
    """From the lines of the reply; the first is the server's greeting. The last of a keyword named twice counts."""
    keywords: dict[str, tuple[str, ...]] = {}
    for line in lines[1:]:
        words = line.split()
        if not words:
            continue
        keyword, *parameters = words
        keyword = keyword.upper()
        if keyword.startswith("AUTH="):
            # From before RFC 4954; the other spelling comes beside it, or not at all.
            parameters.insert(0, keyword[5:])
            keyword = "AUTH"
        if keyword == "AUTH":
            parameters = [*keywords.get("AUTH", ()), *parameters]
        keywords[keyword] = tuple(parameters)
    return Capabilities(keywords)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _SIZE_DIGITS else None
