"""Making a message fit what the next hop takes (RFC 6152, RFC 3030, RFC 6531 3.2, RFC 5321 4.5.3.1.6).

Lines over 998 octets are looked for in all content, by leaps from line end to line end. Where the next hop takes
binary content they go as they are; else their parts are encoded. What is converted loses its DKIM
signature; what our users sent is signed again (RFC 6376 5.3). A conversion holds the message in
memory: its size is bounded, large ones are done in a thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThread

from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.envelope import BodyType
from mailsrv.message.downgrade import CannotConvert, convert, has_eight_bit_header, has_long_line, rest_of_lines
from mailsrv.opened_content import LoadedContent
from mailsrv.relay.settings import LongLines
from mailsrv.smtp.client.capabilities import Capabilities
from mailsrv.status import NON_ASCII_NOT_SUPPORTED, EnhancedStatus

CONVERSION_NOT_POSSIBLE = EnhancedStatus(5, 6, 3)

_AT_ONCE_OCTETS = 32768
_PIECE_OCTETS = 65536

Sign = Callable[[bytes], Awaitable[bytes]]
"""A complete message with its signatures in front; itself where it is not signed."""

_T = TypeVar("_T")


class Unsuitable(Exception):
    """The next hop cannot take this message at all."""

    def __init__(self, status: EnhancedStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@frozen
class Adapted:
    """What goes out, and how MAIL announces it."""

    content: IContent
    body: BodyType
    is_smtputf8: bool


class Adapter:
    """Adapts messages for one process. ``sign`` is for what users sent, after a conversion; None: it stays unsigned."""

    def __init__(self, limit_octets: int, long_lines: LongLines = LongLines.ENCODE, sign: Sign | None = None) -> None:
        self._limit = limit_octets
        self._encodes_long_lines = long_lines is LongLines.ENCODE
        self._sign = sign
        self._lock = DeferredLock()

    async def adapt(
        self,
        content: IContent,
        declared: BodyType,
        offered: Capabilities,
        *,
        wants_smtputf8: bool,
        is_ours: bool = False,
        is_final: bool = False,
    ) -> Adapted:
        """Raises :class:`Unsuitable`; reading may fail as the content's does.

        ``is_ours``: a user of this server sent it. ``is_final``: it is delivered there (LMTP), lines as they are.
        """
        is_smtputf8 = wants_smtputf8 and offered.offers("SMTPUTF8")
        if wants_smtputf8 and not is_smtputf8 and await self._work(content, has_eight_bit_header):
            raise Unsuitable(NON_ASCII_NOT_SUPPORTED, "The header needs SMTPUTF8, which the next host does not offer")
        target = self._target(content, declared, offered)
        takes_binary = offered.offers("BINARYMIME") and offered.can_chunk
        if (
            self._encodes_long_lines
            and not is_final
            and target is not None
            and target is not BodyType.BINARY
            and await self._has_long_line(content)
        ):
            target = BodyType.BINARY if takes_binary else None
        if target is not None:
            return Adapted(content, target, is_smtputf8)
        keeps_eight_bit = offered.offers("8BITMIME")
        try:
            octets = await self._work(content, lambda octets: convert(octets, keeps_eight_bit=keeps_eight_bit))
        except CannotConvert as error:
            raise Unsuitable(
                CONVERSION_NOT_POSSIBLE, f"The next host needs a conversion that would break the message: {error}"
            ) from error
        if is_ours and self._sign is not None:
            octets = await self._sign(octets)
        body = BodyType.SEVEN_BIT if octets.isascii() else BodyType.EIGHT_BIT
        return Adapted(LoadedContent(octets), body, is_smtputf8)

    def _target(self, content: IContent, declared: BodyType, offered: Capabilities) -> BodyType | None:
        """How the content goes out as it is; None where it cannot."""
        if declared is BodyType.BINARY:
            return declared if offered.offers("BINARYMIME") and offered.can_chunk else None
        octets = content.octets
        # Clients say 7BIT of everything; where it is at hand, the content itself is asked.
        is_seven_bit = declared is BodyType.SEVEN_BIT if octets is None else octets.isascii()
        if is_seven_bit:
            return BodyType.SEVEN_BIT
        return BodyType.EIGHT_BIT if offered.offers("8BITMIME") else None

    async def _has_long_line(self, content: IContent) -> bool:
        octets = content.octets
        if octets is not None:
            return has_long_line(octets)
        rest, offset = b"", 0
        while offset < content.size:
            octets = await content.read(offset, min(_PIECE_OCTETS, content.size - offset))
            if not octets:
                break
            offset += len(octets)
            rest += octets
            start = rest_of_lines(rest)
            if start is None:
                return True
            rest = rest[start:]
        return False

    async def _work(self, content: IContent, work: Callable[[bytes], _T]) -> _T:
        octets = content.octets
        if octets is not None and len(octets) <= _AT_ONCE_OCTETS:
            return work(octets)
        if content.size > self._limit:
            raise Unsuitable(CONVERSION_NOT_POSSIBLE, "The message is too large to be converted for the next host")
        await self._lock.acquire()
        try:
            octets = content.octets
            if octets is None:
                octets = await content.read(0, content.size)
            return await deferToThread(work, octets)
        finally:
            self._lock.release()
