"""``mailsrvctl ldap check``: all that LDAP says about an address or a name to log in with, question by question.

Each search is shown with its answer and time, as the server's own code makes it; then what follows from it: what makes
the address one of ours, groups, who may send as whom and to a list, mailboxes that are shared, what becomes of mail.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred

from mailsrv.address import Address
from mailsrv.cli.checks import Check, result, timed
from mailsrv.cli.directory import make_directory_in_place
from mailsrv.cli.domains import make_domains_in_place
from mailsrv.cli.route import Explainer, Explanation, run_explainer, told_lines
from mailsrv.config.schema import Settings
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.domains import Knowledge, LocalDomains
from mailsrv.directory.ldap.build import LdapParts
from mailsrv.directory.ldap.observed import Asked
from mailsrv.directory.posting import describe
from mailsrv.errors import MailError
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.rights import SharedMailbox
from mailsrv.status import BAD_CREDENTIALS

_SHOWN = 10


@define
class _Doctor:
    """One directory, asked about one name."""

    settings: Settings
    parts: LdapParts
    domains: LocalDomains
    address: Address
    asked: list[Asked] = field(factory=list)
    seen: list[Asked] = field(factory=list)
    is_known: bool = False

    def __attrs_post_init__(self) -> None:
        self.parts.client.observer = self.asked.append

    def searches(self) -> Iterator[Check]:
        """Those made since the last time."""
        asked, self.asked[:] = self.asked[:], []
        self.seen += asked
        for each in asked:
            yield Check(
                f"{each.server}, {each.base}: {_readable(each.what)}", not each.trouble, str(each), each.milliseconds
            )

    def examine(self, password: str | None) -> Iterator[Check]:
        directory = self.parts.directory
        try:
            targets = result(directory.find_alias(self.address))
            user = result(directory.find_user(self.address))
            yield from self.searches()
            login = result(directory.find_login(self.address))
            yield from self.searches()
        except MailError as error:
            yield from self.searches()
            self.is_known = True
            yield Check("outcome", False, f"mail for it waits (451), log-ins fail for now: {error.cause}")
            return
        self.is_known = targets is not None or user is not None or login is not None
        if not self.is_known:
            return
        yield from self.why_local()
        if targets is not None:
            yield Check("stands for", True, f"mail for it goes to {_some(targets)}")
        if user is not None:
            yield _user(user)
        yield from self.rights()
        yield from self.log_in(login, password, is_alias=targets is not None)

    def why_local(self) -> Iterator[Check]:
        """Which attribute of which entry makes the address one of ours."""
        reader = self.parts.reader
        for entry in (each for asked in self.seen for each in asked.entries):
            name = reader.where(entry, self.address)
            if name:
                kind = "a group" if reader.is_group(entry) else "a user"
                kind = "an alias entry" if reader.alias_form(entry) else kind
                primary = next(iter(reader.addresses(entry)), self.address)
                also = "" if primary == self.address else f", whose address is {primary}"
                yield Check("address", True, f"it stands in {name} of {entry.dn}, {kind}{also}")
                return

    def rights(self) -> Iterator[Check]:
        """Of the address, whoever has it: who may send to it and as it."""
        rights = AddressRights(self.domains, self.parts.directory, self.settings.list)
        try:
            rule = result(Deferred.fromCoroutine(rights.posting_rule(self.address)))
            sending = result(Deferred.fromCoroutine(rights.send_rights(self.address)))
        except MailError as error:
            yield from self.searches()
            yield Check("rights", False, error.cause or str(error))
            return
        yield from self.searches()
        if rule is not None:
            yield Check("who may post", True, describe(rule))
        if sending is not None:
            own = ["whom mail for it reaches"] if sending.members else []
            named = [str(each) for each in sorted(sending.named, key=str)]
            yield Check("who may send as it", True, _some([*own, *named]))
            if sending.on_behalf:
                yield Check("who may send on its behalf", True, _some(sorted(sending.on_behalf, key=str)))

    def log_in(self, login: DirectoryUser | None, password: str | None, *, is_alias: bool) -> Iterator[Check]:
        directory = self.parts.directory
        if login is None:
            yield Check("log-in", password is None and is_alias, "nobody logs in by this name")
            return
        known = directory.known_entry(login.address)
        yield Check("log-in", login.may_log_in, f"{login.address}{self.objection(known)}, entry {known}")
        groups = timed("groups", lambda: self.groups(known))
        yield from self.searches()
        yield groups
        if self.parts.mapping.has_rights:
            shared = timed("mailboxes of others", lambda: self.shared(login))
            yield from self.searches()
            yield shared
        if password is not None:
            yield timed("password", lambda: self.password(login, password))

    def objection(self, dn: str) -> str:
        """Why the entry's user may not log in."""
        reader = self.parts.reader
        entries = [each for asked in self.seen for each in asked.entries if each.dn == dn]
        text = next((reader.objection(each) for each in entries if reader.user(each) is not None), "")
        return f" may not log in: {text}" if text else ""

    def groups(self, dn: str) -> str:
        found = result(Deferred.fromCoroutine(self.parts.questions.groups_of(dn)))
        administrators = {name.strip().casefold() for name in self.parts.directory.administrator_groups}
        is_administrator = not administrators.isdisjoint(name.strip().casefold() for name in found.names)
        loops = f"; these contain themselves: {', '.join(found.loops)}" if found.loops else ""
        return _some(found.names) + ("; administrator" if is_administrator else "") + loops

    def shared(self, user: DirectoryUser) -> str:
        found: Sequence[SharedMailbox] = result(self.parts.directory.find_shared_mailboxes(user))
        return _some(found)

    def password(self, user: DirectoryUser, password: str) -> str:
        if not result(self.parts.directory.check_password(user, password)):
            raise MailError(BAD_CREDENTIALS, "wrong", cause="wrong, or the account is shut")
        return "right"


def check_name(
    settings: Settings, directories: Sequence[LdapParts], address: Address, password: str | None
) -> Iterator[Check]:
    """Everything; the name is an address, or a name to log in with in the default domain."""
    domains = make_domains_in_place(settings, make_directory_in_place(settings))
    found = domains.find(address.domain)
    if found is None and domains.knowledge is not Knowledge.ALL:
        yield Check(
            "domain", False, f"whether {address.domain} is delivered here is not known: mail for it waits (451)"
        )
    elif found is None:
        yield Check("domain", True, f"{address.domain} is none of this server's: good for log-ins, not for mail")
    else:
        other = "" if found[0] == address.domain else f", as another name of {found[0]}"
        origin = domains.table.origin(address.domain)
        yield Check("domain", True, f"{address.domain} is delivered here ({origin}){other}")
        address = Address(address.local_part, found[0])
    doctors = [_Doctor(settings, parts, domains, address) for parts in directories]
    for doctor in doctors:
        yield from doctor.examine(password)
    if not any(doctor.is_known for doctor in doctors):
        yield Check("outcome", False, f"{address} is nobody in LDAP")
    if found is not None:
        yield _mail(settings, address)


def _mail(settings: Settings, address: Address) -> Check:
    """What would happen to mail of a stranger, with all directories and rules."""
    explanation = Explanation(address, None)
    refusal = run_explainer(Explainer(settings, explanation))
    lines = [line.strip() for line in told_lines(explanation, refusal)][1:]
    # A list that is not for strangers is as it should be.
    is_list = any(step["step"] == "list" for step in explanation.steps)
    is_good = refusal is None or (is_list and not refusal.is_temporary)
    return Check("mail from a stranger", is_good, "; ".join(lines))


def _readable(what: str) -> str:
    """A filter whose values are escaped no more than RFC 4515 demands."""

    def plain(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if " " <= character <= "~" and character not in "()*\\" else match[0]

    return re.sub(r"\\([0-9a-f]{2})", plain, what)


def _user(user: DirectoryUser) -> Check:
    quota = "none of its own" if user.quota_octets is None else f"{user.quota_octets} octets"
    name = f" ({user.display_name})" if user.display_name else ""
    return Check("user", True, f"{user.address}{name}, quota: {quota}")


def _some(names: Iterable[object]) -> str:
    """The first of them, and how many more there are."""
    shown = [str(name) for name in names]
    if not shown:
        return "none"
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
