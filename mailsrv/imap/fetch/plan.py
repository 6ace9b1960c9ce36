"""What a list of FETCH items takes: the columns of a row, in the order they are sent.

Columns that can change (FLAGS, MODSEQ) come first, then those made once from the summary, then
sections read from the message itself. A HEADER.FIELDS of often-asked fields is made from the
summary, so a message list is shown without opening a message.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, field, frozen

from mailsrv.imap.dates import format_date_time
from mailsrv.imap.fetch.items import Attribute, FetchItem, SectionForm, SectionItem
from mailsrv.interfaces.mailbox import MessageSummary
from mailsrv.message import CACHED_FIELD_NAMES, SectionKind, select_fields

Column = Callable[[MessageSummary], bytes]


def _uid(summary: MessageSummary) -> bytes:
    return b"UID %d" % summary.uid


def _internal_date(summary: MessageSummary) -> bytes:
    return b"INTERNALDATE " + format_date_time(summary.internal_date, summary.date_offset_minutes)


def _size(summary: MessageSummary) -> bytes:
    return b"RFC822.SIZE %d" % summary.size_octets


def _envelope(summary: MessageSummary) -> bytes:
    return b"ENVELOPE " + summary.imap_envelope


def _body(summary: MessageSummary) -> bytes:
    return b"BODY " + summary.body


def _body_structure(summary: MessageSummary) -> bytes:
    return b"BODYSTRUCTURE " + summary.body_structure


_COLUMNS: dict[Attribute, Column] = {
    Attribute.UID: _uid,
    Attribute.INTERNALDATE: _internal_date,
    Attribute.RFC822_SIZE: _size,
    Attribute.ENVELOPE: _envelope,
    Attribute.BODY: _body,
    Attribute.BODYSTRUCTURE: _body_structure,
}


def _header_fields(item: SectionItem) -> Column:
    label, names = item.label, item.section.names

    def column(summary: MessageSummary) -> bytes:
        # No literal has NUL (RFC 3501 section 9, CHAR8).
        fields = select_fields(summary.cached_fields, names).replace(b"\0", b"\x80")
        return b"%b {%d}\r\n%b" % (label, len(fields), fields)

    return column


def _is_cached(item: SectionItem) -> bool:
    section = item.section
    return (
        section.kind is SectionKind.HEADER_FIELDS
        and not section.path
        and item.partial is None
        and section.names <= CACHED_FIELD_NAMES
    )


@frozen
class FetchPlan:
    """The columns of a FETCH."""

    wants_flags: bool
    wants_mod_seq: bool
    wants_uid: bool
    columns: tuple[Column, ...]
    """Made from the summary; UID is not among them."""
    sections: tuple[SectionItem, ...]
    """Read from the message."""
    cached_sections: tuple[SectionItem, ...]
    """Made from the summary, where it has the fields; else read from the message."""
    key: bytes
    """Names the rows made from ``columns`` (and UID) in the cache."""
    format_row: Column = field(eq=False, default=_uid)
    """What makes UID, ``columns`` and ``cached_sections`` from the summary, joined by spaces."""

    @property
    def sets_seen(self) -> bool:
        """Whether fetching marks the messages as read."""
        return any(item.sets_seen for item in (*self.sections, *self.cached_sections))

    @property
    def needs_structure(self) -> bool:
        """Whether more of the summary is used than never needs a look into the message."""
        return (
            any(column is not _internal_date for column in self.columns)
            or bool(self.cached_sections)
            or any(item.section.path or item.section.kind is not SectionKind.WHOLE for item in self.sections)
        )

    @property
    def is_array_only(self) -> bool:
        """Whether the arrays of the mailbox are enough."""
        return not (self.columns or self.sections or self.cached_sections)


def make_plan(items: tuple[FetchItem, ...], *, is_uid: bool, with_mod_seq: bool) -> FetchPlan:
    """Sort the items. A UID FETCH tells UIDs (RFC 3501 6.4.8), CHANGEDSINCE mod-sequences (RFC 7162 3.1.4.1)."""
    attributes = [item for item in items if isinstance(item, Attribute)]
    sections = [item for item in items if isinstance(item, SectionItem)]
    cached = tuple(item for item in sections if item.form is SectionForm.OCTETS and _is_cached(item))
    fixed = [attribute for attribute in attributes if attribute in _COLUMNS and attribute is not Attribute.UID]
    labels = [attribute.value for attribute in fixed] + [item.label for item in cached]
    plan = FetchPlan(
        wants_flags=Attribute.FLAGS in attributes,
        wants_mod_seq=with_mod_seq or Attribute.MODSEQ in attributes,
        wants_uid=is_uid or Attribute.UID in attributes,
        columns=tuple([_COLUMNS[attribute] for attribute in fixed]),
        sections=tuple(item for item in sections if item not in cached),
        cached_sections=cached,
        key=b" ".join([b"UID", *labels] if is_uid or Attribute.UID in attributes else labels),
    )
    return evolve(plan, format_row=row_formatter(plan))


def row_formatter(plan: FetchPlan) -> Column:
    """What makes the columns from the summary, joined by spaces."""
    columns: list[Column] = [_uid] if plan.wants_uid else []
    columns += plan.columns
    columns += [_header_fields(item) for item in plan.cached_sections]
    if len(columns) == 1:
        return columns[0]
    return lambda summary: b" ".join([column(summary) for column in columns])
