"""Keys for SCRAM among the stored forms of passwords: finding a user's, and how many users have some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mailsrv.interfaces.directory import DirectoryUser, IDirectory, IScramDirectory, ScramStanding
from mailsrv.sasl.scram_keys import DIGESTS, find_keys


class ScramCensus:
    """Counts the users of a directory who may log in."""

    def __init__(self) -> None:
        self._users = 0
        self._forms: dict[str, Counter[tuple[int, int]]] = {mechanism: Counter() for mechanism in DIGESTS}

    def count(self, user: DirectoryUser) -> None:
        """Take one more into account."""
        self._users += 1
        if user.needs_second_factor:
            # Their clients have app passwords, which SCRAM cannot prove: as good as no keys.
            return
        if not user.verifiers and not user.secret.startswith("{"):
            return
        for mechanism, forms in self._forms.items():
            keys = find_keys(mechanism, (user.secret, *user.verifiers))
            if keys is not None:
                forms[keys.iterations, len(keys.salt)] += 1

    def standings(self) -> Sequence[ScramStanding]:
        """The mechanisms somebody has keys for."""
        found = []
        for mechanism, forms in self._forms.items():
            if forms:
                iterations, salt_octets = forms.most_common(1)[0][0]
                found.append(ScramStanding(mechanism, forms.total() == self._users, iterations, salt_octets))
        return tuple(found)


def joint_standings(directories: Sequence[IDirectory]) -> Sequence[ScramStanding]:
    """Of several directories with users; one that knows no keys has users without them."""
    found: dict[str, ScramStanding] = {}
    complete: Counter[str] = Counter()
    for directory in directories:
        standings = IScramDirectory(directory).scram_standings() if IScramDirectory.providedBy(directory) else ()
        for standing in standings:
            found.setdefault(standing.mechanism, standing)
            complete[standing.mechanism] += standing.has_everyone
    return tuple(
        ScramStanding(name, complete[name] == len(directories), standing.iterations, standing.salt_octets)
        for name, standing in found.items()
    )
