"""Reading search keys (RFC 3501 section 9, `search-key`)."""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.imap.dates import parse_date
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.grammar import NUMBER64_MAX, Cursor
from mailsrv.imap.search.keys import (
    All,
    ByAge,
    ByDay,
    BySummary,
    HasFlag,
    InHeader,
    InMessage,
    InSet,
    IsRecent,
    Key,
    ModSeqAtLeast,
    Not,
    either,
    joined,
    negated,
)
from mailsrv.message import TextSearch, sent_day_of
from mailsrv.message.charsets import codec_name

_FLAGS = {b"ANSWERED", b"DELETED", b"DRAFT", b"FLAGGED", b"SEEN"}
_UNFLAGS = {b"UNANSWERED", b"UNDELETED", b"UNDRAFT", b"UNFLAGGED", b"UNSEEN"}
_FIELDS = {b"BCC": b"bcc", b"CC": b"cc", b"FROM": b"from", b"SUBJECT": b"subject", b"TO": b"to"}
_ENTRY_KINDS = (b"PRIV", b"SHARED", b"ALL")


def codec_of(charset: bytes) -> str:
    """The codec of CHARSET. Raises CommandRefused [BADCHARSET]."""
    codec = codec_name(charset)
    if codec is None:
        raise CommandRefused("Unknown character set", code=b"BADCHARSET (US-ASCII UTF-8)")
    return codec


class SearchParser:
    """Reads keys, collecting what the caller has to know of them all."""

    def __init__(self, cursor: Cursor, codec: str, keys_max: int, text_keys_max: int) -> None:
        self._cursor = cursor
        self._codec = codec
        self._left = keys_max
        self._texts_left = text_keys_max
        self.key_count = 0
        self.sets: list[InSet] = []
        """Sets of numbers, to be worked out before the search."""
        self.has_mod_seq = False

    def keys(self) -> Key:
        """search-key *(SP search-key), up to the end of the command or a parenthesis"""
        keys = [self._key()]
        while self._cursor.skip(b" "):
            keys.append(self._key())
        return joined(keys)

    def _key(self) -> Key:
        cursor = self._cursor
        self.key_count += 1
        self._left -= 1
        if self._left < 0:
            raise BadCommand("Too many search keys", code=b"LIMIT")
        if cursor.looking_at(b"("):
            cursor.open_parenthesis()
            key = self.keys()
            cursor.close_parenthesis()
            return key
        following = cursor.octets[cursor.position : cursor.position + 1]
        if following.isdigit() or following == b"*":
            return self._set(is_uid=False)
        word = cursor.word()
        if word in (b"NOT", b"OR"):
            return self._composed(word)
        if word in _FLAGS:
            return HasFlag("\\" + word.decode("ascii").lower())
        if word in _UNFLAGS:
            return HasFlag("\\" + word[2:].decode("ascii").lower(), is_wanted=False)
        if word in _FIELDS:
            return InHeader(_FIELDS[word], self._text())
        read = _KEYS.get(word)
        if read is None:
            raise BadCommand("Unknown search key")
        return read(self)

    def _composed(self, word: bytes) -> Key:
        cursor = self._cursor
        cursor.descend()
        cursor.space()
        key = self._key()
        if word == b"NOT":
            key = negated(key)
        else:
            cursor.space()
            key = either(key, self._key())
        cursor.depth_limit += 1
        return key

    def _set(self, *, is_uid: bool) -> Key:
        key = InSet(self._cursor.sequence_set(), is_uid)
        self.sets.append(key)
        return key

    def _text(self) -> TextSearch:
        self._cursor.space()
        octets = self._cursor.text()
        try:
            return TextSearch(octets.decode(self._codec))
        except (UnicodeError, ValueError):
            raise BadCommand("The text is not in the character set named") from None

    def _in_message(self, *, with_header: bool) -> Key:
        """BODY and TEXT: each of them decodes every message anew, so few are enough to keep a server busy."""
        self._texts_left -= 1
        if self._texts_left < 0:
            raise BadCommand("Too many texts to search for", code=b"LIMIT")
        return InMessage(self._text(), with_header=with_header)

    def _header(self) -> Key:
        self._cursor.space()
        name = self._cursor.astring().lower()
        return InHeader(name, self._text())

    def _uid(self) -> Key:
        self._cursor.space()
        return self._set(is_uid=True)

    def _keyword(self) -> Key:
        self._cursor.space()
        return HasFlag(self._cursor.atom().decode("ascii").lower())

    def _number(self, largest: int = 2**32 - 1) -> int:
        self._cursor.space()
        return self._cursor.number(largest)

    def _interval(self) -> int:
        self._cursor.space()
        return self._cursor.nz_number()

    def _day(self) -> int:
        self._cursor.space()
        return parse_date(self._cursor)

    def _larger(self) -> Key:
        size = self._number(NUMBER64_MAX)
        return BySummary(lambda summary, now: summary.size_octets > size, needs_content=False)

    def _smaller(self) -> Key:
        size = self._number(NUMBER64_MAX)
        return BySummary(lambda summary, now: summary.size_octets < size, needs_content=False)

    def _before(self) -> Key:
        day = self._day()
        return ByDay(None, day)

    def _on(self) -> Key:
        day = self._day()
        return ByDay(day, day + 1)

    def _since(self) -> Key:
        day = self._day()
        return ByDay(day, None)

    # A message without a usable Date field (-1) is on no day, before none and since none.
    def _sent_before(self) -> Key:
        day = sent_day_of(self._day())
        return BySummary(lambda summary, now: summary.sent_day != -1 and summary.sent_day < day)

    def _sent_on(self) -> Key:
        day = sent_day_of(self._day())
        return BySummary(lambda summary, now: summary.sent_day == day)

    def _sent_since(self) -> Key:
        day = sent_day_of(self._day())
        return BySummary(lambda summary, now: summary.sent_day != -1 and summary.sent_day >= day)

    def _older(self) -> Key:
        seconds = self._interval()
        return ByAge(seconds, is_younger=False)

    def _younger(self) -> Key:
        seconds = self._interval()
        return ByAge(seconds, is_younger=True)

    def _mod_seq(self) -> Key:
        """``"MODSEQ" [SP entry-name SP entry-type-req] SP mod-sequence-valzer``; all flags share one mod-sequence"""
        cursor = self._cursor
        cursor.space()
        if cursor.looking_at(b'"'):
            if not cursor.string().lower().startswith(b"/flags/"):
                raise BadCommand("Unknown metadata item")
            cursor.space()
            if cursor.word() not in _ENTRY_KINDS:
                raise BadCommand("Expected priv, shared or all")
            cursor.space()
        self.has_mod_seq = True
        return ModSeqAtLeast(cursor.number(NUMBER64_MAX))


_KEYS: dict[bytes, Callable[[SearchParser], Key]] = {
    b"ALL": lambda parser: All(),
    b"RECENT": lambda parser: IsRecent(),
    b"OLD": lambda parser: Not(IsRecent()),
    b"NEW": lambda parser: joined([IsRecent(), HasFlag("\\seen", is_wanted=False)]),
    b"KEYWORD": SearchParser._keyword,
    b"UNKEYWORD": lambda parser: negated(parser._keyword()),
    b"UID": SearchParser._uid,
    b"LARGER": SearchParser._larger,
    b"SMALLER": SearchParser._smaller,
    b"BEFORE": SearchParser._before,
    b"ON": SearchParser._on,
    b"SINCE": SearchParser._since,
    b"SENTBEFORE": SearchParser._sent_before,
    b"SENTON": SearchParser._sent_on,
    b"SENTSINCE": SearchParser._sent_since,
    b"OLDER": SearchParser._older,
    b"YOUNGER": SearchParser._younger,
    b"HEADER": SearchParser._header,
    b"BODY": lambda parser: parser._in_message(with_header=False),
    b"TEXT": lambda parser: parser._in_message(with_header=True),
    b"MODSEQ": SearchParser._mod_seq,
}
