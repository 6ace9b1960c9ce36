"""STORE and UID STORE (RFC 3501 6.4.6), with UNCHANGEDSINCE (RFC 7162 3.1.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand
from mailsrv.imap.flags import parse_flag, parse_flag_list
from mailsrv.imap.grammar import NUMBER64_MAX, Cursor
from mailsrv.imap.responses import Ok
from mailsrv.imap.sequence_set import SequenceSet, format_sequence_set
from mailsrv.interfaces.mailbox import FlagOperation, FlagSet

if TYPE_CHECKING:
    from mailsrv.imap.selected import SelectedMailbox
    from mailsrv.imap.session import Session

_OPERATIONS = {
    b"FLAGS": FlagOperation.REPLACE,
    b"+FLAGS": FlagOperation.ADD,
    b"-FLAGS": FlagOperation.REMOVE,
}


@frozen
class Store:
    """Change flags."""

    messages: SequenceSet
    is_uid: bool
    operation: FlagOperation
    flags: FlagSet
    is_silent: bool
    unchanged_since: int | None = None

    async def run(self, session: Session) -> Ok:
        selected = session.writable_mailbox()
        numbering = selected.numbering
        ranges = numbering.by_uid(self.messages) if self.is_uid else numbering.by_number(self.messages)
        if self.unchanged_since is not None:
            session.enable_condstore()
        wanted = numbering.uids_in(ranges)
        if not wanted:
            return Ok()
        expected = self._expected(selected, wanted) if self.is_silent else {}
        stored = await selected.mailbox.store_flags(
            wanted,  # type: ignore[arg-type]
            self.operation,
            self.flags,
            self.unchanged_since,
        )
        modified = set(stored.modified)
        if not self.is_silent:
            selected.keep_quiet(stored.changed, stored.mod_seq)
            told = [uid for uid in wanted if uid not in modified]
            await selected.tell_flags(session, told, with_uid=self.is_uid)
        elif not session.has_condstore:
            selected.keep_quiet(_as_expected(selected, stored.changed, expected), stored.mod_seq)
        else:
            selected.keep_quiet(stored.changed, stored.mod_seq)
            # RFC 7162 3.1.3: the new mod-sequences are told even then.
            await selected.tell_flags(session, stored.changed, with_uid=self.is_uid)
        rows = selected.rows_of_uids(wanted)
        code = b""
        if modified:
            names: list[int] = [
                uid if self.is_uid else number
                for uid, number in zip(rows.uids, rows.numbers, strict=True)
                if uid in modified
            ]
            code = b"MODIFIED " + format_sequence_set(names) if names else b""
        if not rows.is_whole and not self.is_uid:
            # The others were changed; OK as in FETCH.
            return Ok("Some of the messages no longer exist", code or b"EXPUNGEISSUED")
        return Ok("Conditional STORE failed" if code else "", code)

    def _expected(self, selected: SelectedMailbox, uids: Sequence[int]) -> dict[int, FlagSet]:
        """What the client will take the flags to be after a STORE it wants to hear nothing of.

        Messages that others have changed and the client was not told of are left out: those
        it is told of, and also those that turn out otherwise because somebody was faster.
        """
        mailbox = selected.mailbox
        untold = set(mailbox.changed_since(selected.told_mod_seq))
        after: dict[int, FlagSet] = {}
        expected: dict[int, FlagSet] = {}
        rows = selected.rows_of_uids(uids)
        for uid, number in zip(rows.uids, rows.flag_set_numbers, strict=True):
            if uid in untold:
                continue
            flags = after.get(number)
            if flags is None:
                flags = after[number] = self._apply(mailbox.flag_set(number))
            expected[uid] = flags
        return expected

    def _apply(self, flags: FlagSet) -> FlagSet:
        if self.operation is FlagOperation.ADD:
            return flags | self.flags
        return flags - self.flags if self.operation is FlagOperation.REMOVE else self.flags


def _as_expected(selected: SelectedMailbox, changed: Sequence[int], expected: Mapping[int, FlagSet]) -> list[int]:
    """The messages whose flags are what the client works out for itself."""
    rows = selected.rows_of_uids(changed)
    flag_set = selected.mailbox.flag_set
    return [
        uid
        for uid, number in zip(rows.uids, rows.flag_set_numbers, strict=True)
        if expected.get(uid) == flag_set(number)
    ]


def parse(cursor: Cursor, context: ParseContext) -> Store:
    """``store = "STORE" SP sequence-set [SP store-modifiers] SP store-att-flags``"""
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    unchanged_since = None
    if cursor.skip(b"("):
        if cursor.word() != b"UNCHANGEDSINCE":
            raise BadCommand("Unknown modifier of STORE")
        cursor.space()
        unchanged_since = cursor.number(NUMBER64_MAX)
        cursor.expect(b")")
        cursor.space()
    word = cursor.word()
    is_silent = word.endswith(b".SILENT")
    operation = _OPERATIONS.get(word.removesuffix(b".SILENT"))
    if operation is None:
        raise BadCommand("Expected FLAGS, +FLAGS or -FLAGS")
    cursor.space()
    keyword_octets = context.settings.keyword_octets
    if cursor.looking_at(b"("):
        flags = parse_flag_list(cursor, keyword_octets)
    else:
        listed = {parse_flag(cursor, keyword_octets)}
        while cursor.skip(b" "):
            listed.add(parse_flag(cursor, keyword_octets))
        flags = frozenset(listed)
    return Store(messages, context.is_uid, operation, flags, is_silent, unchanged_since)
