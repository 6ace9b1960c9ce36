"""GETQUOTA and GETQUOTAROOT (RFC 9208 4.1): one quota root an account where it has limits at all, "" is the own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import CommandRefused
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.names import decode_name
from mailsrv.imap.responses import Ok
from mailsrv.interfaces.mailbox import NoSuchMailbox, QuotaUsage

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class GetQuota:
    """Usage and limits of a quota root."""

    root: str | None
    """None for what no root can be called."""

    async def run(self, session: Session) -> Ok:
        resources = b""
        if self.root is not None:
            try:
                resources = _format_resources(await session.account_mailboxes().quota(self.root))
            except NoSuchMailbox:
                resources = b""
        if self.root is None or not resources:
            raise CommandRefused("No such quota root", code=b"NONEXISTENT")
        session.send(b"* QUOTA %b (%b)\r\n" % (session.format_name(self.root), resources))
        return Ok()


@frozen
class GetQuotaRoot:
    """The quota roots of a mailbox, with usage and limits."""

    mailbox: str

    async def run(self, session: Session) -> Ok:
        mailboxes = session.account_mailboxes()
        await mailboxes.status(self.mailbox)  # NO [NONEXISTENT] for a mailbox that is not there
        quota_root = mailboxes.quota_root(self.mailbox)
        resources = _format_resources(await mailboxes.quota(quota_root))
        name = session.format_name(self.mailbox)
        if not resources:
            session.send(b"* QUOTAROOT " + name + b"\r\n")
        else:
            root = session.format_name(quota_root)
            session.send(b"* QUOTAROOT %b %b\r\n* QUOTA %b (%b)\r\n" % (name, root, root, resources))
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
    octets = cursor.astring()
    try:
        return GetQuota(octets.decode("utf-8") if context.is_utf8 else decode_name(octets))
    except ValueError:
        return GetQuota(None)


def parse_root(cursor: Cursor, context: ParseContext) -> GetQuotaRoot:
    """``getquotaroot = "GETQUOTAROOT" SP mailbox``"""
    cursor.space()
    return GetQuotaRoot(context.mailbox(cursor))
