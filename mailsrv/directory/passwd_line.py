"""One line of a passwd-file, as Dovecot reads and writes them.

``user:password:uid:gid:gecos:home:shell:extra_fields``, where everything after the password may
be missing. Extra fields are separated by spaces; those that mean something here are

* ``userdb_quota_rule=*:storage=1G`` (also without ``userdb_``) and ``userdb_quota_storage_size=1G``,
* ``nologin``: mail is taken, log-ins are refused,
* ``allow_nets=192.0.2.0/24,…``: log-ins from elsewhere are refused,
* ``groups=staff,sales``: for rules about groups of users (``[[access]]``),
* ``administrator=yes``: may act for other users, where the settings allow that,
* ``second_factor=yes``: the password alone lets nobody in; app passwords and tokens do,
* ``scram_sha_256=ITERATIONS,SALT,STORED-KEY,SERVER-KEY`` and ``scram_sha_1=…``: keys of the same password.

Others are tolerated. uid, gid, home and shell are not used: mail belongs to the server. A field
that restricts log-ins and cannot be understood refuses them: to ignore it would open the account.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

from attrs import frozen

from mailsrv.directory.names import parse_account_name
from mailsrv.directory.passwords.verifiers import is_locked, is_supported
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.sasl.scram_keys import DIGESTS, ScramKeys

_SIZE = re.compile(r"(\d{1,15})\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
SCRAM_FIELDS = {mechanism.lower().replace("-", "_"): mechanism for mechanism in DIGESTS}
"""The extra fields for keys, and their mechanisms."""
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@frozen
class PasswdEntry:
    """A line that names a user; ``warnings`` are what the administrator should know of it."""

    user: DirectoryUser
    warnings: tuple[str, ...] = ()


def is_entry(line: str) -> bool:
    """Whether a line is more than a comment or empty."""
    return bool(line.strip()) and not line.startswith(("#", ":"))


def parse_size(text: str, bare_unit: str = "b") -> int:
    """``1G`` in octets; a number alone counts in ``bare_unit``. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size")
    return int(match[1]) * _UNITS[match[2].lower() or bare_unit]


def parse_line(line: str, default_domain: str = "") -> PasswdEntry:
    """The entry of a line. Raises ValueError with a sentence that quotes no secret."""
    fields = line.split(":", 7)
    if len(fields) < 2:
        raise ValueError("no colon: expected user:password:…")
    address = parse_account_name(fields[0], default_domain)
    secret = fields[1]
    warnings: list[str] = []
    may_log_in = True
    if is_locked(secret):
        may_log_in = False
    elif not is_supported(secret):
        may_log_in = False
        warnings.append(f"{address} cannot log in: the password's scheme is not supported")
    quota_octets: int | None = None
    networks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    is_administrator = False
    needs_second_factor = False
    verifiers: list[str] = []
    for extra in fields[7].split() if len(fields) > 7 else ():
        key, _, value = extra.partition("=")
        key = key.removeprefix("userdb_")
        try:
            if key == "quota_rule":
                quota_octets = _parse_quota_rule(value, quota_octets)
            elif key == "quota_storage_size":
                quota_octets = parse_size(value) or None
            elif key == "nologin":
                may_log_in = False
            elif key == "allow_nets":
                networks = _parse_networks(value)
            elif key == "groups":
                groups = _parse_groups(value)
            elif key == "administrator":
                is_administrator = _parse_flag(value)
            elif key == "second_factor":
                needs_second_factor = _parse_flag(value)
            elif key in SCRAM_FIELDS:
                ScramKeys.parse(SCRAM_FIELDS[key], value)
                verifiers.append(f"{{{SCRAM_FIELDS[key]}}}{value}")
        except ValueError as error:
            warnings.append(f"{address}: {key}: {error}")
            may_log_in = may_log_in and key not in ("allow_nets", "groups", "second_factor")
    return PasswdEntry(
        DirectoryUser(
            address=address,
            display_name=fields[4].split(",", 1)[0].strip() if len(fields) > 4 else "",
            quota_octets=quota_octets,
            may_log_in=may_log_in,
            secret=secret,
            fingerprint=hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=16).digest(),
            networks=networks,
            groups=groups,
            is_administrator=is_administrator,
            needs_second_factor=needs_second_factor,
            verifiers=tuple(verifiers),
        ),
        tuple(warnings),
    )


def _parse_quota_rule(rule: str, known: int | None) -> int | None:
    """``MAILBOX:LIMIT=SIZE:…``; only the rule for everything (``*``, ``?``) is a limit of the account."""
    mailbox, *limits = rule.split(":")
    if mailbox not in {"*", "?", ""}:
        return known
    for limit in limits:
        name, _, value = limit.partition("=")
        # Dovecot counts a bare "storage" number in kilobytes.
        if name == "storage":
            known = parse_size(value, "k") or None
        elif name == "bytes":
            known = parse_size(value) or None
    return known


def _parse_networks(value: str) -> tuple[str, ...]:
    networks: list[str] = []
    for item in value.split(","):
        if item == "local":
            networks.append(item)
        elif item:
            networks.append(str(ipaddress.ip_network(item, strict=False)))
    if not networks:
        raise ValueError("no network named")
    return tuple(networks)


def _parse_groups(value: str) -> tuple[str, ...]:
    groups = tuple(dict.fromkeys(item for item in value.split(",") if item))
    if not groups:
        raise ValueError("no group named")
    return groups


def _parse_flag(value: str) -> bool:
    """``yes``, or nothing, as other fields of this format have it."""
    if value.lower() in {"", "y", "yes", "true", "1"}:
        return True
    if value.lower() in {"n", "no", "false", "0"}:
        return False
    raise ValueError(f"{value!r} is neither yes nor no")
