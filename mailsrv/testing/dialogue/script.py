r"""The file of a dialogue, and how it is read.

===================  ====================================================================================
``# text``           A comment; empty lines are ignored too.
``@with KEY=VALUE``  An option for the test to read from ``dialogue.options`` before it builds the server.
``@modes NAME …``    The modes to run in: ``whole``, ``octets``, ``pipelined``. Default: the first two.
``C: text``          The client sends the text in UTF-8, and CRLF. ``${name}`` is replaced by a variable.
``C< text``          The client sends just these octets, no CRLF. ``\r \n \t \0 \\ \xNN`` stand for octets,
                     and ``\*COUNT{text}`` for many of them: ``\*2000{x}``.
``S: text``          The server's next line is this; ``...`` stands for any octets, also none.
``S~ regex``         The server's next line matches the whole regular expression; named groups
                     (``(?P<name>…)``) become variables.
``S* text``          Lines of the server are skipped up to the first that is like ``text`` (as ``S:``).
``S? text``          The server's next line may be this; if it is another, it is left for what follows.
``S< text``          The server's next octets are exactly these (escapes as in ``C<``), whatever lines they form.
``S+ N text``        The next N lines are all like ``text``.
``S{`` … ``S}``      The ``S: `` and ``S~ `` lines between come in any order.
``@silent``          The server has nothing more to say by now.
``@advance SECONDS`` The clock goes on.
``@sync``            Pipelined mode: wait here for all answers before going on (a no-op elsewhere).
``@do NAME``         Call ``hooks["NAME"]()``: change something behind the server's back.
``@tls``             The server must have begun TLS (STARTTLS); what follows is inside it.
``@eof``             The client closes the connection.
``@closed``          The server must have closed the connection, after all it said.
``@open``            The server must not have closed it.
===================  ====================================================================================

Output that no ``S`` line expects is a failure: before each ``C`` (except in pipelined mode, where the
order of answers is checked, not their moment), before each ``@`` line except ``@with``, ``@modes``,
``@do`` and ``@advance``, and at the end. A directive is a point where the pipelined mode waits for
all answers; so put ``@sync`` where a client has to (after DATA, AUTH, an IMAP literal).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen


class Mode(enum.Enum):
    """How the client's octets reach the server."""

    WHOLE = "whole"
    """Each line in a segment of its own, after the answers to the one before."""
    OCTETS = "octets"
    """Each octet in a segment of its own."""
    PIPELINED = "pipelined"
    """Everything up to the next directive without waiting for answers, in chunks that cut lines anywhere."""


@frozen
class Step:
    """One line of the file: what kind, its text, and where it stands."""

    kind: str
    text: str
    line_number: int
    alternatives: tuple[Step, ...] = ()
    """The lines of a ``S{`` block."""


@frozen
class Dialogue:
    """A dialogue that was read from a file."""

    name: str
    steps: tuple[Step, ...]
    options: Mapping[str, str]
    modes: tuple[Mode, ...]


_LINE = re.compile(r"([CS][:<~*?+]) ?(.*)|(S\{|S\})\s*|@(\w+)(?:\s+(.*))?")
_KINDS = frozenset({"C:", "C<", "S:", "S~", "S*", "S?", "S<", "S+"})
_DIRECTIVES = frozenset({"silent", "advance", "sync", "do", "tls", "eof", "closed", "open"})


def parse_dialogue(text: str, name: str = "dialogue") -> Dialogue:
    """Read the text of a dialogue file; raises ``ValueError`` with the line number."""
    steps: list[Step] = []
    options: dict[str, str] = {}
    modes: tuple[Mode, ...] = (Mode.WHOLE, Mode.OCTETS)
    block: list[Step] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{name}, line {number}: not understood: {line!r}")
        kind, argument, brace, directive, rest = match.groups()
        rest = (rest or "").strip()
        if brace == "S{":
            block = []
        elif brace == "S}":
            if block is None:
                raise ValueError(f"{name}, line {number}: S}} without S{{")
            steps.append(Step("S{", "", number, tuple(block)))
            block = None
        elif directive == "with":
            key, _, value = rest.partition("=")
            options[key.strip()] = value.strip()
        elif directive == "modes":
            modes = tuple(Mode(word) for word in rest.split())
        elif directive:
            if directive not in _DIRECTIVES:
                raise ValueError(f"{name}, line {number}: unknown directive @{directive}")
            steps.append(Step("@" + directive, rest, number))
        elif kind not in _KINDS or (block is not None and kind not in {"S:", "S~"}):
            raise ValueError(f"{name}, line {number}: {kind} cannot stand here")
        else:
            (steps if block is None else block).append(Step(kind, argument, number))
    if block is not None:
        raise ValueError(f"{name}: S{{ without S}}")
    return Dialogue(name, tuple(steps), options, modes)


def load_dialogue(path: Path) -> Dialogue:
    """The dialogue in a file."""
    return parse_dialogue(path.read_text(encoding="utf-8"), path.stem)


def find_dialogues(folder: Path) -> list[tuple[Dialogue, Mode]]:
    """Every ``*.txt`` of a folder in every mode it asks for, sorted by name; fails where there is none."""
    cases = [
        (dialogue, mode)
        for path in sorted(folder.glob("*.txt"))
        for dialogue in [load_dialogue(path)]
        for mode in dialogue.modes
    ]
    if not cases:
        raise ValueError(f"no dialogues in {folder}")
    return cases


def case_id(value: object) -> str:
    """For ``ids=`` of pytest's parametrize."""
    if isinstance(value, Dialogue):
        return value.name
    return value.value if isinstance(value, Mode) else repr(value)


_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|\*(\d+)\{([^}]*)\}|(.))", re.DOTALL)
_SIMPLE = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


def unescape(text: str) -> bytes:
    """The octets that a ``C<`` or ``S<`` line stands for."""

    def octets_for(match: re.Match[bytes]) -> bytes:
        hexadecimal, count, repeated, simple = match.groups()
        if hexadecimal:
            return bytes([int(hexadecimal, 16)])
        if count:
            return _ESCAPE.sub(octets_for, repeated) * int(count)
        if simple not in _SIMPLE:
            raise ValueError(f"unknown escape {match.group()!r}")
        return _SIMPLE[simple]

    return _ESCAPE.sub(octets_for, text.encode("utf-8"))
