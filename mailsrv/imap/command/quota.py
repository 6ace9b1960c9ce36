"""GETQUOTA and GETQUOTAROOT (RFC 9208 4.1): one quota root, "", where the account has limits at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import CommandRefused
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok
from mailsrv.interfaces.mailbox import QuotaUsage

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_ROOT = b'""'


@frozen
class GetQuota:
    """Usage and limits of a quota root."""

    root: bytes

    async def run(self, session: Session) -> Ok:
        usage = await session.account_mailboxes().quota()
        resources = _format_resources(usage)
        if self.root or not resources:
            raise CommandRefused("No such quota root", code=b"NONEXISTENT")
        session.send(b"* QUOTA %b (%b)\r\n" % (_ROOT, resources))
        return Ok()


@frozen
class GetQuotaRoot:
    """The quota roots of a mailbox, with usage and limits."""

    mailbox: str

    async def run(self, session: Session) -> Ok:
        mailboxes = session.account_mailboxes()
        await mailboxes.status(self.mailbox)  # NO [NONEXISTENT] for a mailbox that is not there
        resources = _format_resources(await mailboxes.quota())
        name = session.format_name(self.mailbox)
        if not resources:
            session.send(b"* QUOTAROOT " + name + b"\r\n")
        else:
            session.send(b"* QUOTAROOT %b %b\r\n* QUOTA %b (%b)\r\n" % (name, _ROOT, _ROOT, resources))
        return Ok()


def _format_resources(usage: QuotaUsage) -> bytes:
    """STORAGE in units of 1024 octets (RFC 9208 5.1), MESSAGE; only what is limited."""
    resources = []
    if usage.octet_limit is not None:
        resources.append(b"STORAGE %d %d" % (-(-usage.octets // 1024), usage.octet_limit // 1024))
    if usage.message_limit is not None:
        resources.append(b"MESSAGE %d %d" % (usage.messages, usage.message_limit))
    return b" ".join(resources)


def parse(cursor: Cursor, context: ParseContext) -> GetQuota:
    """``getquota = "GETQUOTA" SP quota-root-name``"""
    cursor.space()
    return GetQuota(cursor.astring())


def parse_root(cursor: Cursor, context: ParseContext) -> GetQuotaRoot:
    """``getquotaroot = "GETQUOTAROOT" SP mailbox``"""
    cursor.space()
    return GetQuotaRoot(context.mailbox(cursor))
