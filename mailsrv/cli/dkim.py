"""``mailsrvctl dkim``: signing keys from their making to the day their record may go.

Works on the key files, whether the server runs or not; a running one takes a change up with the
next reload (SIGHUP).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NoReturn

import click

from mailsrv.address import AddressError, parse_domain
from mailsrv.cli.domains import is_own_domain, where_domains_are
from mailsrv.cli.output import json_option, moment_or_null
from mailsrv.cli.root import CommandContext
from mailsrv.cli.zone import quote_text, zone_line
from mailsrv.mailauth.key_store import KeyState, KeyStore, KeyStoreError, StoredKey, key_folder
from mailsrv.mailauth.keys import MAXIMUM_RSA_BITS, MINIMUM_RSA_BITS, Algorithm, is_selector

ROTATION = """\
Rotating keys, without a message that cannot be verified:
  1. mailsrvctl dkim new DOMAIN           makes the next key; publish the record it prints
  2. mailsrvctl dns check DOMAIN          says when the record can be seen (mind the time to live)
  3. mailsrvctl dkim activate DOMAIN --selector NEW, and reload the server: both keys sign
  4. mailsrvctl dkim retire DOMAIN --selector OLD, and reload the server
  5. after a week, when mail on its way has arrived, remove the old record from the DNS"""

_RELOAD = "A running server takes this up with the next reload (SIGHUP)."


def fail(sentence: str) -> NoReturn:
    """One sentence on standard error, status 1."""
    click.echo(f"mailsrvctl: {sentence}", err=True)
    raise SystemExit(1)


def own_domain(context: CommandContext, text: str) -> str:
    """A domain of ours, one of its other names, or the host name, for whose mail we are answerable."""
    try:
        domain = parse_domain(text)
    except AddressError as error:
        raise click.BadParameter(f"{text} is not a domain name", param_hint="DOMAIN") from error
    settings = context.settings
    if domain != settings.hostname.lower() and not is_own_domain(settings, domain):
        fail(f"{domain} is none of the domains {where_domains_are(settings)}")
    return domain


def key_store(context: CommandContext) -> KeyStore:
    """Where the configuration says."""
    return KeyStore(key_folder(context.settings.dkim, context.settings.state_dir))


@click.group("dkim", epilog="\b\n" + ROTATION)
def dkim_group() -> None:
    """Keys that sign mail (DKIM)."""


@dkim_group.command("new")
@click.argument("domain")
@click.option("--selector", default="", help="Name of the key in the DNS; by default from today's date.")
@click.option(
    "--algorithm",
    type=click.Choice([each.value for each in Algorithm]),
    default=Algorithm.RSA.value,
    show_default=True,
    help="rsa is understood everywhere; ed25519 is small and fast, best beside an rsa key.",
)
@click.option(
    "--bits",
    type=click.IntRange(MINIMUM_RSA_BITS, MAXIMUM_RSA_BITS),
    default=MINIMUM_RSA_BITS,
    show_default=True,
    help="Size of an rsa key.",
)
@click.option("--activate", "is_active", is_flag=True, help="Sign with it at once: where mail is not flowing yet.")
@click.pass_obj
def new(context: CommandContext, domain: str, *, selector: str, algorithm: str, bits: int, is_active: bool) -> None:
    """Make a key and print the record to publish. It signs once it is activated."""
    domain = own_domain(context, domain)
    store = key_store(context)
    if selector and not is_selector(selector):
        raise click.BadParameter("letters (lower case), digits, hyphens and dots make a selector")
    state = KeyState.ACTIVE if is_active else KeyState.PUBLISHED
    kind = Algorithm(algorithm)
    now = int(time.time())
    try:
        selector = selector or _free_selector(store, domain, kind, now)
        stored = store.new(domain, selector, kind, bits=bits, state=state, seconds=now)
    except KeyStoreError as error:
        fail(str(error))
    click.echo(f"; The key is in {store.path(domain, selector)}. Publish this record:", err=True)
    click.echo(_record(stored))
    if is_active:
        click.echo(f"; It signs. {_RELOAD}", err=True)
    else:
        follows = f"mailsrvctl dkim activate {domain} --selector {selector}"
        click.echo(f"; When it can be seen (mailsrvctl dns check {domain}): {follows}", err=True)


def _free_selector(store: KeyStore, domain: str, kind: Algorithm, now: int) -> str:
    taken = {stored.key.selector for stored in store.keys(domain)}
    base = f"{datetime.fromtimestamp(now, UTC):%Y%m%d}{kind.value[0]}"
    selector, number = base, 1
    while selector in taken:
        number += 1
        selector = f"{base}-{number}"
    return selector


@dkim_group.command("list")
@click.argument("domain", required=False)
@json_option()
@click.pass_obj
def list_keys(context: CommandContext, domain: str | None, as_json: bool) -> None:
    """List the keys, of one domain or of all."""
    store = key_store(context)
    try:
        domains = [own_domain(context, domain)] if domain else store.domains()
        found = [stored for each in domains for stored in store.keys(each)]
    except KeyStoreError as error:
        fail(str(error))
    rows = [_row(store, stored) for stored in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        # "published" is what its record has to be; nothing here knows whether it is.
        state = "not active yet" if row["state"] == KeyState.PUBLISHED.value else row["state"]
        click.echo(f"{row['domain']}  {row['selector']}  {row['algorithm']} {row['bits']}  {state}")


def _row(store: KeyStore, stored: StoredKey) -> dict[str, object]:
    key = stored.key
    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm.value,
        "bits": key.bits,
        "state": stored.state.value,
        "created": moment_or_null(stored.created or None),
        "path": store.path(key.domain, key.selector),
        "record_name": key.record_name,
        "record": key.record,
    }


@dkim_group.command("show")
@click.argument("domain")
@click.option("--selector", default="", help="Only this key.")
@json_option()
@click.pass_obj
def show(context: CommandContext, domain: str, selector: str, as_json: bool) -> None:
    """Print the DNS records of a domain's keys, ready for a zone file."""
    domain = own_domain(context, domain)
    store = key_store(context)
    found = [stored for stored in _keys(store, domain) if not selector or stored.key.selector == selector]
    if not found:
        fail(f"{domain} has no key" + (f" with the selector {selector}" if selector else "; make one: dkim new"))
    if as_json:
        click.echo(json.dumps([_row(store, stored) for stored in found], indent=2))
        return
    for stored in found:
        click.echo(f"; {stored.key.selector}: {stored.state.value}")
        click.echo(_record(stored))


@dkim_group.command("activate")
@click.argument("domain")
@click.option("--selector", default="", help="Which key; needed where several wait.")
@click.pass_obj
def activate(context: CommandContext, domain: str, selector: str) -> None:
    """Sign with a key from the next reload on; its record should be in the DNS."""
    domain, selector = _change(context, domain, selector, KeyState.ACTIVE, lambda state: state is KeyState.PUBLISHED)
    click.echo(f"{selector} of {domain} signs. {_RELOAD}")


@dkim_group.command("retire", epilog="\b\n" + ROTATION)
@click.argument("domain")
@click.option("--selector", default="", help="Which key; needed where several sign.")
@click.pass_obj
def retire(context: CommandContext, domain: str, selector: str) -> None:
    """Stop signing with a key. Leave its record in the DNS for a week, for mail that is on its way."""
    domain, selector = _change(context, domain, selector, KeyState.RETIRED, lambda state: state is KeyState.ACTIVE)
    click.echo(f"{selector} of {domain} is retired. {_RELOAD} Remove its record from the DNS in a week.")
    if not any(stored.state is KeyState.ACTIVE for stored in _keys(key_store(context), domain)):
        click.echo(f"mailsrvctl: mail of {domain} is not signed any more: there is no active key", err=True)


def _change(
    context: CommandContext, text: str, selector: str, state: KeyState, is_meant: Callable[[KeyState], bool]
) -> tuple[str, str]:
    """Set the state of the key that is named, or of the only one that can be meant; which it was."""
    domain = own_domain(context, text)
    store = key_store(context)
    keys = _keys(store, domain)
    if not selector:
        meant = [stored.key.selector for stored in keys if is_meant(stored.state)]
        if len(meant) != 1:
            which = ", ".join(meant) or "none"
            fail(f"{domain} has {len(meant)} keys that could be meant ({which}); say --selector")
        [selector] = meant
    elif all(stored.key.selector != selector for stored in keys):
        fail(f"{domain} has no key with the selector {selector}")
    try:
        store.set_state(domain, selector, state)
    except KeyStoreError as error:
        fail(str(error))
    return domain, selector


def _keys(store: KeyStore, domain: str) -> tuple[StoredKey, ...]:
    try:
        return store.keys(domain)
    except KeyStoreError as error:
        fail(str(error))


def _record(stored: StoredKey) -> str:
    return zone_line(stored.key.record_name, "TXT", quote_text(stored.key.record))
