"""Changes as the server itself tells them (:class:`~mailsrv.directory.ldap.changes.Source`).

Content synchronization (RFC 4533, refreshAndPersist: OpenLDAP with the overlay syncprov, 389 Directory Server) begins
with everything there is, goes on with every change, and after an interruption with what was missed. Persistent search
(draft-ietf-ldapext-psearch: 389 Directory Server, FreeIPA and others) tells changes from now on. A connection that is
silent is asked for a sign of life now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.logger import Logger

from mailsrv.directory.ldap import messages
from mailsrv.directory.ldap.changes import MANY, Change, Feed, NotOffered, Source
from mailsrv.directory.ldap.changes_poll import Concern, PollSource, read_root
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.filters import present
from mailsrv.directory.ldap.messages import Message, MessageError, read_control, read_elements, tlv
from mailsrv.directory.ldap.results import SUCCESS, check_search
from mailsrv.directory.ldap.trouble import ConnectionLost, ServerTrouble

SYNC_REQUEST, SYNC_STATE = b"1.3.6.1.4.1.4203.1.9.1.1", b"1.3.6.1.4.1.4203.1.9.1.2"
SYNC_DONE, SYNC_INFO = b"1.3.6.1.4.1.4203.1.9.1.3", b"1.3.6.1.4.1.4203.1.9.1.4"
PERSISTENT_SEARCH, ENTRY_CHANGE = b"2.16.840.1.113730.3.4.3", b"2.16.840.1.113730.3.4.7"

_REFRESH_AND_PERSIST, _ALL_CHANGES = 3, 15
_STATE_PRESENT, _STATE_DELETE = 0, 3
_NEW_COOKIE, _REFRESH_DELETE, _REFRESH_PRESENT, _SYNC_ID_SET = 0x80, 0xA1, 0xA2, 0xA3
_CHANGE_DELETE, _CHANGE_RENAME = 2, 8
_REFRESH_REQUIRED = 4096
_OCTETS, _ENUMERATED, _INTEGER, _BOOLEAN, _SEQUENCE = 0x04, 0x0A, 0x02, 0x01, 0x30
_RESPONSE_VALUE = 0x81
_COOKIE_OCTETS = 65_536
_LOOK_SECONDS = 1.0
"""How soon a stop is noticed."""
SILENCE_SECONDS = 30.0
"""After so long without a word a sign of life is asked for."""


class Listening:
    """The messages of one search without end, and signs of life between them."""

    def __init__(self, connection: LdapConnection, number: int, feed: Feed, answer_seconds: float) -> None:
        self._connection = connection
        self._number = number
        self._feed = feed
        self._answer_seconds = answer_seconds
        self._heard_at = time.monotonic()
        self._asked_at: float | None = None

    def next(self, seconds: float = _LOOK_SECONDS) -> Message | None:
        """The next message of the search; None where there was none. Raises ServerTrouble."""
        message = self._connection.next_message(seconds)
        now = time.monotonic()
        if message is not None:
            self._heard_at, self._asked_at = now, None
            if message.number == self._number:
                return message
            if message.number == 0:
                raise ConnectionLost("the server ends the connection")
            return None
        if self._asked_at is not None and now - self._asked_at > self._answer_seconds:
            raise ServerTrouble("the server is silent")
        if self._asked_at is None and now - self._heard_at > SILENCE_SECONDS:
            self._asked_at = now
            self._connection.begin_search(
                "", present("objectClass"), ("1.1",), now + self._answer_seconds, whole_tree=False
            )
        return None


class SyncSource:
    """RFC 4533. Keeps the cookie, so that an interruption costs only what has changed meanwhile."""

    def __init__(self, concern: Concern) -> None:
        self._concern = concern
        self._cookie = b""
        self._is_refreshed = False
        self._may_be_anything = False
        self._changes: list[Change] = []

    def follow(self, connection: LdapConnection, feed: Feed) -> None:
        concern = self._concern
        if SYNC_REQUEST.decode() not in read_root(connection, concern.answer_seconds).texts("supportedControl"):
            raise NotOffered("the server offers no content synchronization (RFC 4533)")
        cookie = tlv(_OCTETS, self._cookie) if self._cookie else b""
        value = tlv(_SEQUENCE, tlv(_ENUMERATED, bytes((_REFRESH_AND_PERSIST,))) + cookie)
        number = connection.begin_search(
            concern.base,
            concern.what,
            concern.attributes,
            time.monotonic() + concern.answer_seconds,
            controls=(messages.control(SYNC_REQUEST, value),),
        )
        self._is_refreshed = False
        # Without a cookie the server begins with all there is: nothing of it is news by itself, but time has passed.
        self._may_be_anything = not self._cookie
        self._changes = []
        # The refresh is computed when its first message comes, and may be long.
        listening = Listening(connection, number, feed, max(concern.answer_seconds, SILENCE_SECONDS))
        try:
            while feed.goes_on():
                message = listening.next(0.05 if self._changes else _LOOK_SECONDS)
                if message is not None:
                    self._hear(message)
                if self._is_refreshed and (message is None or len(self._changes) >= MANY):
                    self._tell(feed)
                    feed.following("content synchronization")
                elif len(self._changes) >= MANY:
                    # That much has changed while we were away.
                    self._changes, self._may_be_anything = [], True
        finally:
            if self._cookie:
                # The cookie may stand for them already: nobody would tell them again.
                self._tell(feed)

    def _tell(self, feed: Feed) -> None:
        changes, self._changes = self._changes, []
        if self._may_be_anything:
            self._may_be_anything = False
            feed.tell(None)
        elif changes:
            feed.tell(changes)

    def _hear(self, message: Message) -> None:
        try:
            if message.tag == messages.SEARCH_ENTRY:
                self._hear_entry(message)
            elif message.tag == messages.INTERMEDIATE_RESPONSE:
                self._hear_information(message.content)
            elif message.tag == messages.SEARCH_DONE:
                self._hear_end(message)
        except MessageError as error:
            raise ServerTrouble(str(error)) from error

    def _hear_entry(self, message: Message) -> None:
        value = read_control(message.controls, SYNC_STATE)
        if value is None:
            raise MessageError("an entry without its state")
        parts = _inside(value)
        state = _number_of(parts, _ENUMERATED)
        octets = [content for tag, content in parts if tag == _OCTETS]
        if len(octets) > 1:
            self._keep(octets[1])
        if self._may_be_anything or state == _STATE_PRESENT:
            return
        dn, values = messages.read_entry(message.content)
        self._changes.append(Change(dn, None if state == _STATE_DELETE else LdapEntry(dn, values)))

    def _hear_information(self, content: bytes) -> None:
        """Sync Info (RFC 4533 2.5)."""
        elements = read_elements(content)
        if (0x80, SYNC_INFO) not in elements:
            return
        tag, inside = next(iter(read_elements(next((v for t, v in elements if t == _RESPONSE_VALUE), b""))), (0, b""))
        if tag == _NEW_COOKIE:
            self._keep(inside)
            return
        parts = read_elements(inside)
        for kind, octets in parts:
            if kind == _OCTETS:
                self._keep(octets)
        if tag == _SYNC_ID_SET:
            # Entries by their UUID alone, mostly those that were deleted meanwhile: whose they are we do not keep.
            self._may_be_anything = True
        elif tag in (_REFRESH_DELETE, _REFRESH_PRESENT):
            # What is present was told by name and the rest is gone: which, we do not keep.
            self._may_be_anything |= tag == _REFRESH_PRESENT
            self._is_refreshed |= (_BOOLEAN, b"\0") not in parts

    def _hear_end(self, message: Message) -> None:
        outcome = messages.read_outcome(message.content)
        if outcome.code == _REFRESH_REQUIRED:
            self._cookie = b""
            raise ConnectionLost("the server wants to begin anew")
        if outcome.code != SUCCESS:
            self._cookie = b""
            check_search(outcome, self._concern.base)
        raise ConnectionLost("the server ends the search")

    def _keep(self, cookie: bytes) -> None:
        if len(cookie) <= _COOKIE_OCTETS:
            self._cookie = cookie


class PersistentSearchSource:
    """Changes from now on; what happened before, or in an interruption, may have been anything."""

    def __init__(self, concern: Concern) -> None:
        self._concern = concern

    def follow(self, connection: LdapConnection, feed: Feed) -> None:
        concern = self._concern
        if PERSISTENT_SEARCH.decode() not in read_root(connection, concern.answer_seconds).texts("supportedControl"):
            raise NotOffered("the server offers no persistent search")
        yes = tlv(_BOOLEAN, b"\xff")
        value = tlv(_SEQUENCE, tlv(_INTEGER, bytes((_ALL_CHANGES,))) + yes + yes)
        number = connection.begin_search(
            concern.base,
            concern.what,
            concern.attributes,
            time.monotonic() + concern.answer_seconds,
            controls=(messages.control(PERSISTENT_SEARCH, value),),
        )
        feed.tell(None)
        listening = Listening(connection, number, feed, max(concern.answer_seconds, SILENCE_SECONDS))
        changes: list[Change] = []
        while feed.goes_on():
            message = listening.next(0.05 if changes else _LOOK_SECONDS)
            if message is not None:
                changes += self._hear(message)
            if message is None or len(changes) >= MANY:
                if changes:
                    feed.tell(changes)
                    changes = []
                # It is not announced that a search is under way: an answer other than that would be here by now.
                feed.following("persistent search")

    def _hear(self, message: Message) -> list[Change]:
        try:
            if message.tag == messages.SEARCH_DONE:
                check_search(messages.read_outcome(message.content), self._concern.base)
                raise ConnectionLost("the server ends the search")
            if message.tag != messages.SEARCH_ENTRY:
                return []
            dn, values = messages.read_entry(message.content)
            entry = LdapEntry(dn, values)
            value = read_control(message.controls, ENTRY_CHANGE)
            parts = _inside(value) if value else []
            kind = _number_of(parts, _ENUMERATED) if parts else 0
            if kind == _CHANGE_DELETE:
                return [Change(dn)]
            former = [content.decode("utf-8", "replace") for tag, content in parts if tag == _OCTETS]
            renamed = [Change(each) for each in former] if kind == _CHANGE_RENAME else []
            return [*renamed, Change(dn, entry)]
        except MessageError as error:
            raise ServerTrouble(str(error)) from error


class BestSource:
    """The first of several ways that the server offers; the last is offered by all."""

    _log = Logger()

    def __init__(self, concern: Concern, interval_seconds: float, first: Callable[[Concern], Source] | None) -> None:
        sources: list[Source] = [SyncSource(concern), PersistentSearchSource(concern)]
        if first is not None:
            sources = [first(concern)]
        self._is_asked_for = first is not None
        self._sources: list[Source] = [*sources, PollSource(concern, interval_seconds)]

    def follow(self, connection: LdapConnection, feed: Feed) -> None:
        *wanted, last = self._sources
        for source in wanted:
            try:
                source.follow(connection, feed)
            except NotOffered as error:
                if self._is_asked_for:
                    self._log.error(
                        "{server}: {error}: changes are polled", server=connection.server.uri, error=str(error)
                    )
            else:
                return
        last.follow(connection, feed)


def _inside(value: bytes) -> list[tuple[int, bytes]]:
    """The elements of the one sequence a value is."""
    elements = read_elements(value)
    if len(elements) != 1 or elements[0][0] != _SEQUENCE:
        raise MessageError("the value of a control that is no sequence")
    return read_elements(elements[0][1])


def _number_of(parts: list[tuple[int, bytes]], tag: int) -> int:
    if not parts or parts[0][0] != tag or not 0 < len(parts[0][1]) <= 4:
        raise MessageError("a value of a control that does not begin with a number")
    return int.from_bytes(parts[0][1], "big", signed=True)
