"""Messages whose files cannot be read, met while a command looks at others: those are done all the same."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from mailsrv.errors import Unavailable
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.mailbox import IMailbox, Uid, UnreadableMessage

_log = Logger()
_MOST = 16
"""More messages that cannot be read are taken for a disk that cannot."""


class Unreadable:
    """Those of one mailbox that one command has met. None is asked for twice."""

    def __init__(self, mailbox: IMailbox) -> None:
        self._mailbox = mailbox
        self.errors: dict[int, UnreadableMessage] = {}
        """By UID."""
        self.has_read = False
        """Whether any message could be looked into."""

    def add(self, error: UnreadableMessage) -> None:
        """Remember one; raises the first of them where they are too many."""
        self.errors.setdefault(int(error.uid), error)
        if len(self.errors) > _MOST:
            raise next(iter(self.errors.values()))

    async def open(self, uids: Sequence[Uid]) -> list[IContent | None]:
        """As :meth:`IMailbox.contents`, with None for what cannot be read, too."""
        wanted = [uid for uid in uids if uid not in self.errors]
        contents: Sequence[IContent | None]
        try:
            contents = await self._mailbox.contents(wanted) if wanted else []
        except UnreadableMessage as error:
            self.add(error)
            contents = await self._open_each(wanted)
        opened = dict(zip(wanted, contents, strict=True))
        self.has_read = self.has_read or any(content is not None for content in contents)
        return [opened.get(uid) for uid in uids]

    async def _open_each(self, uids: Sequence[Uid]) -> list[IContent | None]:
        contents: list[IContent | None] = []
        try:
            for uid in uids:
                contents.append(await self._open_one(uid))
        except BaseException:
            for content in contents:
                if content is not None:
                    content.close()
            raise
        return contents

    async def _open_one(self, uid: Uid) -> IContent | None:
        if uid in self.errors:
            return None
        try:
            [content] = await self._mailbox.contents([uid])
        except UnreadableMessage as error:
            self.add(error)
            return None
        return content

    async def read(self, uid: Uid, content: IContent, offset: int, count: int) -> bytes | None:
        """Octets of a message that was opened; None where the disk refuses them after all."""
        try:
            return await content.read(offset, count)
        except (OSError, Unavailable) as error:
            name, cause = self._mailbox.name, str(error)
            account = str(self._mailbox.account)
            _log.error(
                "message {uid} in {name} of {account} cannot be read: {cause}",
                uid=uid,
                name=name,
                account=account,
                cause=cause,
            )
            self.add(UnreadableMessage(uid, cause))
            return None
