"""``mailsrvctl route``: where mail for an address goes, step by step, and why.

Asks the directories and rules of the configuration by the server's own code, whether it runs or not; the
DNS is not asked. Exit status 0: it is delivered or handed on; 1: it is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import click
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import provider

from mailsrv.address import Address, AddressError, parse_mailbox
from mailsrv.cli.directory import make_directory_in_place
from mailsrv.cli.domains import make_domains_in_place
from mailsrv.cli.output import json_option, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.config.schema import Settings
from mailsrv.delivery.onward import SenderPolicy
from mailsrv.delivery.recipients import Found, OnwardTarget, RecipientPolicy, Service
from mailsrv.delivery.srs_secret import read_rewriting
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.domains import STATIC_ORIGIN, Knowledge, LocalDomains
from mailsrv.directory.names import canonical_address
from mailsrv.directory.posting import Poster, PostingPolicy, describe
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.resolve_steps import Step, StepKind
from mailsrv.directory.send_as import SendAsPolicy
from mailsrv.errors import MailError
from mailsrv.routing.rules import TransportRules
from mailsrv.routing.srs import SrsError, is_srs
from mailsrv.status import NOT_AUTHORISED

_STEPS = {
    StepKind.ALIAS: "{address} is an alias for {result}",
    StepKind.AGAIN: "{address} was met before",
    StepKind.USER: "{address} is a user",
    StepKind.CARRIED: "{address} is delivered elsewhere, as a rule says",
    StepKind.FORWARD: "{address} forwards to {result}",
    StepKind.OWNER: "{address} is a list; {result} is its owner and gets its bounces",
    StepKind.POSTMASTER: "nobody is named {address}: postmaster's mail goes to {result}",
    StepKind.CATCH_ALL: "nobody is named {address}: the domain's catch-all is {result}",
    StepKind.NOBODY: "nobody is named {address}",
}


@define
class Explanation:
    """What is found out, in the order it is."""

    address: Address
    sender: Address | None
    login: Address | None = None
    """Who sends it, logged in; None: it comes from elsewhere."""
    steps: list[dict[str, object]] = field(factory=list)
    results: list[dict[str, object]] = field(factory=list)

    def add(self, kind: str, text: str, **values: object) -> None:
        self.steps.append({"step": kind, "text": text, **values})


class Explainer:
    """The parts of a server that decide about recipients, told to think aloud."""

    def __init__(self, settings: Settings, explanation: Explanation) -> None:
        self._now = time.time()
        self._told = explanation
        directory = make_directory_in_place(settings)
        self._domains = make_domains_in_place(settings, directory)
        self._routes = settings.route
        self._router = TransportRules(settings.route, self._domains.all_names)
        self._resolver = AddressResolver(self._domains, directory, target_limit=settings.delivery.alias_targets)
        self._delivery = settings.delivery
        rights = AddressRights(self._domains, directory, settings.list)
        self._senders_of = SendAsPolicy(self._resolver, rights)
        self._posting = PostingPolicy(self._resolver, rights, believes_senders=settings.delivery.believe_list_senders)
        rewriting = read_rewriting(settings.delivery, settings.state_dir, self._now)
        self._rewriting = rewriting
        self._senders = SenderPolicy(self._domains, rewriting, settings.delivery.srs_domain)
        self._policy = RecipientPolicy(
            Service.SUBMISSION, self._resolver, self._router, rewriting=rewriting, seconds=lambda: self._now
        )

    async def explain(self) -> None:
        """Fill the explanation. Raises MailError where the mail would be refused."""
        told, address, sender = self._told, self._told.address, self._told.sender
        if told.login is not None:
            await self._explain_login(told.login, sender)
        ours = self._resolver.canonical(address)
        if ours is None:
            is_certain = self._domains.knowledge is Knowledge.ALL
            when = "" if is_certain else ", as far as is known while a directory does not tell its domains"
            others = "" if is_certain else "; mail of others waits (451)"
            told.add("domain", f"{address.domain} is not a domain of this server{when}", is_local=False)
            told.add("relay", f"only users who are logged in and delivery.relay_networks may send there{others}")
        else:
            what = "" if ours.domain == address.domain else f", a name of {ours.domain}"
            origin = self._domains.table.origin(address.domain)
            by = "" if origin == STATIC_ORIGIN else f" ({origin})"
            told.add("domain", f"{address.domain} is a domain of this server{what}{by}", is_local=True, origin=origin)
            if is_srs(address):
                self._explain_bounce(address)
            elif self._router.has_local_rules:
                self._explain_rule(sender, ours)
        found = await self._policy.find(address, sender, may_relay=True, listener=self._step)
        for list_address, rule in await self._posting.rules(found.passed):
            told.add("list", f"{list_address} is a list: {describe(rule)}", address=str(list_address))
        poster = Poster(told.login, sender, is_trusted=told.login is not None)
        await self._posting.check(found.passed, poster, found.reached())
        self._conclude(found)

    async def _explain_login(self, login: Address, sender: Address | None) -> None:
        if sender is None or sender == login:
            return
        if not await self._senders_of.may_send_as(login, sender):
            raise MailError(NOT_AUTHORISED, "The sender address is not yours", cause=f"{login} as {sender}")
        self._told.add("sender", f"{login} may send as {sender}")

    def _step(self, step: Step) -> None:
        kind = step.kind
        if kind is StepKind.DOMAIN:
            return
        address, result = str(step.address), list(step.result)
        if kind is StepKind.SUBADDRESS:
            text = f"{address} is {result[0]} with the detail {result[1]!r}"
        else:
            text = _STEPS[kind].format(address=address, result=", ".join(result))
        self._told.add(kind.value, text, address=address, result=result)

    def _explain_bounce(self, address: Address) -> None:
        if self._rewriting is None:
            self._told.add("srs", "it looks like a rewritten sender; the secret that would tell cannot be read")
            return
        try:
            original = self._rewriting.restore(address, self._now)
        except SrsError as error:
            self._told.add("srs", f"it looks like a rewritten sender: {error.cause}")
        else:
            self._told.add("srs", f"it stands for the sender {original}; it takes notices (--from '<>') only")

    def _explain_rule(self, sender: Address | None, recipient: Address) -> str:
        """Say which rule decides; answers how it is called."""
        route = self._router.find(sender, recipient)
        if route.rule is None:
            name = "no rule"
            what = "local" if recipient.domain in self._domains else "mx"
            text = f"no rule matches {recipient}: {what}"
        else:
            name = f"route[{route.rule}]"
            rule = self._routes[route.rule]
            by = "" if rule.sender == "*" else f', from = "{rule.sender}"'
            text = f'{name} (to = "{rule.to}"{by}) matches {recipient}: via = "{rule.via}"'
        self._told.add("rule", text, rule=route.rule, address=str(recipient))
        return name

    def _conclude(self, found: Found) -> None:
        results = self._told.results
        for target in found.accounts:
            results.append({"via": "local", "account": str(target.account), "detail": target.detail})
        for onward in found.onward:
            rule = self._explain_rule(self._told.sender, onward.address)
            results.append(
                {
                    "via": str(onward.destination),
                    "address": str(onward.address),
                    "rule": rule,
                    "reverse_path": self._explain_sender(onward),
                }
            )
        if not results:
            if self._resolver.canonical(self._told.address) is None:
                self._explain_rule(self._told.sender, self._told.address)
            results.append({"via": "discard"})

    def _explain_sender(self, target: OnwardTarget) -> str:
        sender = self._told.sender
        if sender is None or target.forwarder is None:
            return str(sender or "")
        if (
            self._delivery.srs
            and self._rewriting is None
            and target.owner is None
            and sender.domain not in self._domains
        ):
            self._told.add("srs", f"the sender {sender} is rewritten; the secret for it cannot be read from here")
            return f"SRS0=…={sender.domain}={sender.local_part}@{self._delivery.srs_domain or target.forwarder.domain}"
        policy = self._senders if self._delivery.srs else SenderPolicy(self._domains)
        new = policy.forwarding_sender(sender, target, self._now)
        if new != sender:
            self._told.add("srs" if target.owner is None else "owner", f"the sender {sender} becomes {new}")
        return str(new or "")


def _with_domain(text: str, domain: str) -> str:
    """Names may be as local programs and users write them: root, postmaster, alice."""
    return text if "@" in text else f"{text}@{domain}"


def _parse(text: str, hint: str) -> Address:
    try:
        return parse_mailbox(text)
    except AddressError as error:
        raise click.BadParameter(f"{text!r} is no address: {error.text}", param_hint=hint) from error


@click.command("route")
@click.argument("address")
@click.option("--from", "sender", default="", metavar="SENDER", help="The envelope sender; <> for a notice.")
@click.option("--login", default="", metavar="USER", help="Sent by this user, logged in; else it comes from elsewhere.")
@json_option()
@click.pass_obj
def route_command(context: CommandContext, address: str, sender: str, login: str, as_json: bool) -> None:
    """Explain where mail for ADDRESS goes."""
    domain = context.settings.auth.default_domain or LocalDomains(context.settings.domain).primary
    user = canonical_address(_parse(_with_domain(login, domain), "--login")) if login else None
    reverse_path = user if sender == "" else None if sender == "<>" else _parse(sender, "--from")
    explanation = Explanation(_parse(_with_domain(address, domain), "ADDRESS"), reverse_path, user)
    refusal = run_explainer(Explainer(context.settings, explanation))
    if as_json:
        _tell_as_json(explanation, refusal)
    else:
        for line in told_lines(explanation, refusal):
            say(line)
    raise SystemExit(1 if refusal else 0)


def run_explainer(explainer: Explainer) -> MailError | None:
    """The refusal, if it ends with one. Runs to the end at once; what the parts would log goes to standard error."""
    ended: list[object] = []
    globalLogPublisher.addObserver(_show_trouble)
    try:
        Deferred.fromCoroutine(explainer.explain()).addBoth(ended.append)
    finally:
        globalLogPublisher.removeObserver(_show_trouble)
    result = ended[0] if ended else Failure(RuntimeError("a directory did not answer"))
    if isinstance(result, Failure):
        error = result.value
        if isinstance(error, MailError):
            return error
        result.raiseException()
    return None


@provider(ILogObserver)
def _show_trouble(event: LogEvent) -> None:
    level = event.get("log_level")
    if level in (LogLevel.error, LogLevel.warn, LogLevel.critical):
        say(f"mailsrvctl: {formatEvent(event)}", err=True)


def told_lines(explanation: Explanation, refusal: MailError | None) -> Iterator[str]:
    """The explanation for people."""
    sender = str(explanation.sender) if explanation.sender else ""
    by = f", sent by {explanation.login}" if explanation.login else ""
    yield f"{explanation.address}, from <{sender}>{by}"
    for step in explanation.steps:
        yield f"  {step['text']}"
    if refusal is not None:
        kind = "deferred" if refusal.is_temporary else "refused"
        cause = f"  ({refusal.cause})" if refusal.cause else ""
        yield f"  → {kind}: {refusal.status} {refusal.text}{cause}"
        return
    for result in explanation.results:
        if result["via"] == "local":
            detail = f", detail {result['detail']!r}" if result["detail"] else ""
            yield f"  → mailbox of {result['account']}{detail}"
        elif result["via"] == "discard":
            yield "  → dropped"
        else:
            yield f"  → {result['via']} for {result['address']}, from <{result['reverse_path']}>"


def _tell_as_json(explanation: Explanation, refusal: MailError | None) -> None:
    table = {
        "address": str(explanation.address),
        "sender": str(explanation.sender) if explanation.sender else "",
        "login": str(explanation.login) if explanation.login else "",
        "steps": explanation.steps,
        "results": explanation.results,
        "refusal": None
        if refusal is None
        else {"status": str(refusal.status), "text": refusal.text, "cause": refusal.cause},
    }
    click.echo(to_json(table, indent=2))
