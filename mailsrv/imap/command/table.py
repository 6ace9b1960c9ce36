"""The table of commands: in which states they may come, and what may be told with them.

RFC 3501 7.4.1 forbids EXPUNGE during FETCH, STORE and SEARCH, as their message numbers would lose
their meaning; with UID before them it is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailsrv.imap.command import (
    append,
    authenticate,
    capability,
    check,
    close,
    copy,
    create,
    delete,
    enable,
    expunge,
    fetch,
    idle,
    login,
    logout,
    lsub,
    namespace,
    noop,
    quota,
    rename,
    search,
    select,
    starttls,
    status,
    store,
    subscribe,
)
from mailsrv.imap.command import id as identification
from mailsrv.imap.command import list as listing
from mailsrv.imap.command.spec import CommandSpec
from mailsrv.imap.state import ANY, AUTHENTICATED, NOT_AUTHENTICATED, SELECTED

COMMANDS: Mapping[bytes, CommandSpec] = {
    b"CAPABILITY": CommandSpec(capability.parse, ANY),
    b"NOOP": CommandSpec(noop.parse, ANY, refreshes=True),
    b"LOGOUT": CommandSpec(logout.parse, ANY),
    b"ID": CommandSpec(identification.parse, ANY),
    b"STARTTLS": CommandSpec(starttls.parse, NOT_AUTHENTICATED),
    b"AUTHENTICATE": CommandSpec(authenticate.parse, NOT_AUTHENTICATED),
    b"LOGIN": CommandSpec(login.parse, NOT_AUTHENTICATED),
    b"ENABLE": CommandSpec(enable.parse, AUTHENTICATED),
    b"SELECT": CommandSpec(select.parse, AUTHENTICATED),
    b"EXAMINE": CommandSpec(select.parse_examine, AUTHENTICATED),
    b"CREATE": CommandSpec(create.parse, AUTHENTICATED),
    b"DELETE": CommandSpec(delete.parse, AUTHENTICATED),
    b"RENAME": CommandSpec(rename.parse, AUTHENTICATED),
    b"SUBSCRIBE": CommandSpec(subscribe.parse, AUTHENTICATED),
    b"UNSUBSCRIBE": CommandSpec(subscribe.parse_unsubscribe, AUTHENTICATED),
    b"LIST": CommandSpec(listing.parse, AUTHENTICATED),
    b"LSUB": CommandSpec(lsub.parse, AUTHENTICATED),
    b"NAMESPACE": CommandSpec(namespace.parse, AUTHENTICATED),
    b"STATUS": CommandSpec(status.parse, AUTHENTICATED),
    b"APPEND": CommandSpec(append.parse, AUTHENTICATED),
    b"IDLE": CommandSpec(idle.parse, AUTHENTICATED, refreshes=True),
    b"GETQUOTA": CommandSpec(quota.parse, AUTHENTICATED),
    b"GETQUOTAROOT": CommandSpec(quota.parse_root, AUTHENTICATED),
    b"CHECK": CommandSpec(check.parse, SELECTED, refreshes=True),
    b"CLOSE": CommandSpec(close.parse, SELECTED),
    b"UNSELECT": CommandSpec(close.parse_unselect, SELECTED),
    b"EXPUNGE": CommandSpec(expunge.parse, SELECTED, has_uid_variant=True, refreshes=True),
    b"SEARCH": CommandSpec(search.parse, SELECTED, has_uid_variant=True, may_renumber=False, refreshes=True),
    b"FETCH": CommandSpec(fetch.parse, SELECTED, has_uid_variant=True, may_renumber=False),
    b"STORE": CommandSpec(store.parse, SELECTED, has_uid_variant=True, may_renumber=False, uid_refreshes=False),
    b"COPY": CommandSpec(copy.parse, SELECTED, has_uid_variant=True),
    b"MOVE": CommandSpec(copy.parse_move, SELECTED, has_uid_variant=True),
}
