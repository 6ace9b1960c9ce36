"""Everything adjustable about domains, directories and password hashes."""

from __future__ import annotations

import enum
from typing import Any

from attrs import Attribute, field, frozen, validators

from mailsrv.address import AddressError, parse_domain


def _domains(record: object, attribute: Attribute[Any], value: str | tuple[str, ...]) -> None:
    for domain in (value,) if isinstance(value, str) else value:
        try:
            parse_domain(domain)
        except AddressError as error:
            raise ValueError(f"{domain!r} is no domain", attribute) from error


@frozen
class DomainSettings:
    """One ``[[domain]]``: mail for it is delivered here."""

    name: str = field(validator=_domains, metadata={"help": "The domain.", "example": "example.test"})
    aliases: tuple[str, ...] = field(
        default=(),
        validator=_domains,
        metadata={"help": "Further domains whose addresses mean the same as those of this one."},
    )
    subaddress_delimiter: str = field(
        default="+",
        metadata={"help": 'What separates a user from the detail of a subaddress (alice+lists@…); "" for none.'},
    )
    postmaster: str = field(
        default="",
        metadata={
            "help": "Who gets mail for postmaster where neither a user nor an alias has that name; "
            "empty: the first user by alphabet. Mail for postmaster is never refused.",
            "example": "alice@example.test",
        },
    )
    catch_all: str = field(
        default="",
        metadata={
            "help": "Who gets mail for names nobody has, here or elsewhere; empty: it is refused. Spam grows with it.",
            "example": "alice@example.test",
        },
    )


class DirectoryType(enum.Enum):
    """What kind of directory it is."""

    PASSWD_FILE = "passwd-file"  # noqa: S105 - the name of a format
    ALIAS_FILE = "alias-file"
    ALIASES = "aliases"


@frozen
class DirectorySettings:
    """One ``[[directory]]``; they are asked in order."""

    type: DirectoryType = field(
        metadata={
            "help": "passwd-file: users, in Dovecot's format. alias-file: lines of 'address: target, target'. "
            "aliases: names for all domains, in the form of /etc/aliases.",
        },
    )
    path: str = field(validator=validators.min_len(1), metadata={"help": "The file.", "example": "mailsrv.passwd"})
    domain: str = field(
        default="",
        validator=lambda record, attribute, value: _domains(record, attribute, value) if value else None,
        metadata={
            "help": "aliases: the domain its names are of; empty: all domains, and names on the right are of "
            "auth.default_domain.",
            "example": "example.test",
        },
    )
    check_seconds: float = field(
        default=1.0,
        validator=validators.ge(0),
        metadata={"help": "How often, at most, the file is looked at for changes.", "unit": "s"},
    )
    deadline_seconds: float = field(
        default=5.0,
        validator=validators.gt(0),
        metadata={"help": "A file that cannot be read in this time counts as unavailable.", "unit": "s"},
    )
    max_octets: int = field(default=64 * 1024 * 1024, metadata={"help": "A larger file is refused.", "unit": "octets"})


class ScramMechanism(enum.Enum):
    """A mechanism that needs keys of its own."""

    SHA_256 = "SCRAM-SHA-256"
    SHA_1 = "SCRAM-SHA-1"


@frozen
class PasswordSettings:
    """``[passwords]``: how new password hashes are made, and how many are computed at a time.

    The defaults take about 50 ms and 19 MiB a log-in (RFC 9106 section 4 leaves the choice to memory).
    """

    argon2_time_cost: int = field(
        default=2, validator=validators.ge(1), metadata={"help": "Argon2id passes over the memory, for new hashes."}
    )
    argon2_memory_kib: int = field(
        default=19 * 1024, metadata={"help": "Argon2id memory, for new hashes.", "unit": "KiB"}
    )
    argon2_parallelism: int = field(
        default=1, validator=validators.ge(1), metadata={"help": "Argon2id lanes, for new hashes."}
    )
    hash_threads: int = field(
        default=2,
        validator=validators.ge(1),
        metadata={"help": "Password hashes computed at the same time, per process."},
    )
    hash_queue: int = field(
        default=128,
        validator=validators.ge(0),
        metadata={"help": "Log-ins that may wait for a hash; past it the answer is a temporary failure."},
    )
    scram: tuple[ScramMechanism, ...] = field(
        default=(ScramMechanism.SHA_256,),
        metadata={
            "help": "For which mechanisms keys are stored beside the hash when a password is set: SCRAM-SHA-256, "
            "SCRAM-SHA-1. Without keys nobody can log in by them; with them a stolen file is cheaper to guess at."
        },
    )
    scram_iterations: int = field(
        default=100_000,
        validator=validators.and_(validators.ge(4096), validators.le(10_000_000)),
        metadata={"help": "Rounds of PBKDF2 for such keys; the client computes them at every log-in."},
    )
