"""The state of a server as somebody beside it can find it out: its processes' own words, and the files they share.

Works whether the server runs or not. What is not well is a *concern*, a sentence for the administrator; a server that
runs with concerns is degraded.
"""

from __future__ import annotations

import enum
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from mailsrv.app.policy_files import uses_tls
from mailsrv.app.status_file import SERVER, FoundStatus, read_statuses, status_folder
from mailsrv.auth.blocks import count_blocks
from mailsrv.auth.failure_table import ExistingFailures, failures_path
from mailsrv.auth.shared_failures import SharedFailures
from mailsrv.config.schema import Settings
from mailsrv.directory.domains import Knowledge
from mailsrv.disk import RealDisk
from mailsrv.errors import MailError
from mailsrv.journal.stuck import StuckFolder
from mailsrv.queue.admin import QueueAdministration
from mailsrv.queue.content import CORRUPT
from mailsrv.tls.certificates import TlsError, load_certificate
from mailsrv.wire.networks import NetworkSet

_STALE_INTERVALS = 3.0
_STALE_SECONDS = 15.0
"""A worker that has not written for three intervals, and not for this long, hangs."""
_CERTIFICATE_DAYS = 7.0
_DAY = 86_400.0


class Condition(enum.Enum):
    """All in one word."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    NOT_RUNNING = "not running"


@frozen
class Space:
    """Room on a file system."""

    path: str
    free_octets: int
    floor_octets: int

    @property
    def is_low(self) -> bool:
        """New mail is refused."""
        return self.free_octets < self.floor_octets


@frozen
class StatusReport:
    """What was found; None where it could not be."""

    now: float
    condition: Condition
    concerns: tuple[str, ...]
    server: Mapping[str, Any] | None
    """Of the process the others belong to; its last words where it does not run."""
    workers: tuple[FoundStatus, ...]
    """Those that live; where none does, those that were last."""
    connections: Mapping[str, int]
    directories: tuple[Mapping[str, Any], ...]
    """Merged: what any worker finds amiss is amiss."""
    domains: tuple[Mapping[str, Any], ...]
    """Of each directory that lists domains: as the worker says that knows least."""
    queue: Mapping[str, Any] | None
    stuck_deliveries: int | None
    damaged_files: int | None
    """What the queue could not read any more and set aside, until somebody takes it away."""
    blocked: int | None
    delayed: int | None
    certificate_ends: float | None
    space: tuple[Space, ...] = field(default=())

    @property
    def workers_expected(self) -> int:
        """As many as there should be."""
        return int(number(self.server.get("workers", 1))) if self.server is not None else 0


def make_report(settings: Settings, now: float | None = None) -> StatusReport:
    """Look at everything. Raises OSError where the status folder cannot be read."""
    now = time.time() if now is None else now
    found = read_statuses(status_folder(settings.state_dir))
    server = next((each for each in found if each.name == SERVER), None)
    is_running = server is not None and server.is_alive
    written = [each for each in found if each.name != SERVER]
    alive = [each for each in written if each.is_alive]
    workers = sorted(alive or ([] if is_running else written), key=lambda each: str(each.content.get("worker")))
    directories = _merged_directories(alive)
    domains = _merged_domains(alive)
    expected = int(number(server.content.get("workers", 1))) if server is not None else 0
    concerns = [*_worker_concerns(alive, expected, now)] if is_running else []
    concerns += _directory_concerns(directories)
    concerns += _domain_concerns(domains)
    concerns += _journal_concerns(alive)
    queue = _queue(settings, concerns)
    stuck = _stuck(settings, concerns)
    damaged = _damaged(settings, concerns)
    blocked, delayed = _blocks(settings, now, concerns)
    ends = _certificate_ends(settings, alive, now, concerns)
    space = tuple(_space(settings, concerns))
    condition = Condition.NOT_RUNNING
    if is_running:
        condition = Condition.DEGRADED if concerns else Condition.HEALTHY
    return StatusReport(
        now=now,
        condition=condition,
        concerns=tuple(concerns),
        server=None if server is None else server.content,
        workers=tuple(workers),
        connections=_connections(alive),
        directories=directories,
        domains=domains,
        queue=queue,
        stuck_deliveries=stuck,
        damaged_files=damaged,
        blocked=blocked,
        delayed=delayed,
        certificate_ends=ends,
        space=space,
    )


def age_of(worker: FoundStatus, now: float) -> float:
    """Seconds since it wrote."""
    return max(0.0, now - worker.modified_at)


def _worker_concerns(alive: Sequence[FoundStatus], expected: int, now: float) -> Iterator[str]:
    if len(alive) < expected:
        yield f"{len(alive)} of {expected} workers run"
    for worker in alive:
        limit = max(_STALE_SECONDS, _STALE_INTERVALS * number(worker.content.get("every_seconds")))
        age = age_of(worker, now)
        if age > limit:
            yield f"worker {worker.content.get('worker')} has said nothing for {age:.0f} s"


def _connections(alive: Sequence[FoundStatus]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for worker in alive:
        total.update(connections_of(worker))
    return dict(sorted(total.items()))


def connections_of(worker: FoundStatus) -> dict[str, int]:
    """By service. A worker of another version may say something else there."""
    connections = worker.content.get("connections")
    if not isinstance(connections, Mapping):
        return {}
    return {str(name): int(number(count)) for name, count in connections.items()}


def _merged_directories(alive: Sequence[FoundStatus]) -> tuple[Mapping[str, Any], ...]:
    merged: dict[str, dict[str, Any]] = {}
    for worker in alive:
        directories = worker.content.get("directories")
        for told in directories if isinstance(directories, list) else ():
            if not isinstance(told, Mapping):
                continue
            name = str(told.get("name"))
            before = merged.get(name)
            merged[name] = dict(told) if before is None else _worse(before, told)
    return tuple(merged.values())


def _worse(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Of two workers' words about a directory."""
    result = dict(one if number(one.get("is_out")) >= number(other.get("is_out")) else other)
    servers: dict[str, Mapping[str, Any]] = {}
    for server in (*one.get("servers", ()), *other.get("servers", ())):
        known = servers.get(server["uri"])
        if known is None or (known["is_up"] and not server["is_up"]):
            servers[server["uri"]] = server
    result["servers"] = list(servers.values())
    result["answers"] = _most(one.get("answers"), other.get("answers"))
    return result


def _most(one: Any, other: Any) -> Any:
    numbers = [each for each in (one, other) if each is not None]
    return max(numbers) if numbers else None


def _directory_concerns(directories: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for directory in directories:
        if directory.get("is_out"):
            yield f"{directory['name']} cannot be asked: {directory.get('trouble') or 'no answer'}"
        for server in directory.get("servers", ()):
            if not server["is_up"]:
                yield f"{server['uri']} is down: {server.get('cause') or 'no answer'}"


def _merged_domains(alive: Sequence[FoundStatus]) -> tuple[Mapping[str, Any], ...]:
    """A worker of another version may say nothing of the kind."""
    merged: dict[str, Mapping[str, Any]] = {}
    for worker in alive:
        domains = worker.content.get("domains")
        for told in domains if isinstance(domains, list) else ():
            if isinstance(told, Mapping):
                name = str(told.get("name"))
                merged[name] = max(merged.get(name, told), told, key=_ignorance)
    return tuple(merged.values())


def _ignorance(source: Mapping[str, Any]) -> tuple[int, float]:
    known = [each.value for each in (Knowledge.ALL, Knowledge.LAST_HEARD, Knowledge.NONE)]
    knowledge = source.get("knowledge")
    return known.index(knowledge) if knowledge in known else 0, number(source.get("age_seconds"))


def _domain_concerns(domains: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for source in domains:
        cause = source.get("trouble") or "no answer yet"
        if source.get("knowledge") == Knowledge.NONE.value:
            yield f"{source.get('name')} has never told its domains, mail for unknown ones waits: {cause}"
        elif source.get("knowledge") == Knowledge.LAST_HEARD.value:
            yield f"{source.get('name')} does not tell its domains, the last list is used: {cause}"


def _journal_concerns(alive: Sequence[FoundStatus]) -> Iterator[str]:
    for worker in alive:
        journal = worker.content.get("journal")
        if not isinstance(journal, Mapping):
            continue
        who = f"worker {worker.content.get('worker')}"
        if not journal.get("is_running"):
            yield f"the journal of {who} takes no mail"
        if number(journal.get("blocked_deliveries")):
            yield f"{who}: mail of {journal['blocked_deliveries']} deliveries does not get into its mailboxes"


def _queue(settings: Settings, concerns: list[str]) -> dict[str, Any] | None:
    directory = os.path.join(settings.state_dir, "queue")
    if not os.path.exists(directory):
        return None
    try:
        administration = QueueAdministration(directory, RealDisk(), busy_seconds=2.0)
        try:
            statistics = administration.statistics(0)
        finally:
            administration.close()
    except MailError as error:
        concerns.append(f"the queue cannot be read: {error.text}")
        return None
    return {"messages": statistics.messages, "octets": statistics.octets, **statistics.recipients}


def _stuck(settings: Settings, concerns: list[str]) -> int | None:
    try:
        count = len(StuckFolder(RealDisk(), os.path.join(settings.state_dir, "journal", "stuck")).list())
    except OSError:
        return None
    if count:
        concerns.append(f"{count} accepted deliveries were put aside (mailsrvctl journal stuck)")
    return count


def _damaged(settings: Settings, concerns: list[str]) -> int | None:
    folder = os.path.join(settings.state_dir, "queue", CORRUPT)
    try:
        count = len(os.listdir(folder))
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    if count:
        concerns.append(f"{count} damaged files of the queue are in {folder}: look at them, then move them away")
    return count


def _blocks(settings: Settings, now: float, concerns: list[str]) -> tuple[int | None, int | None]:
    path = failures_path(settings.state_dir)
    try:
        file = ExistingFailures.open(path)
    except (OSError, ValueError) as error:
        concerns.append(f"{path} cannot be read: {error}")
        return None, None
    if file is None:
        return 0, 0
    return count_blocks(SharedFailures(file, settings.auth), NetworkSet(settings.limits.exempt_networks), now)


def _certificate_ends(
    settings: Settings, alive: Sequence[FoundStatus], now: float, concerns: list[str]
) -> float | None:
    """By what the workers use; where none runs, by the files."""
    told = [number(each.content.get("certificate_ends")) for each in alive]
    ends = [each for each in told if each]
    if not alive and uses_tls(settings):
        tls = settings.tls
        pairs = [(tls.certificate, tls.key), *((path, path) for path in tls.more_certificates)]
        try:
            ends = [load_certificate(*pair).expires.timestamp() for pair in pairs]
        except TlsError as error:
            concerns.append(str(error))
    if not ends:
        return None
    first = float(min(ends))
    if first <= now:
        concerns.append("the certificate has ended: clients refuse it")
    elif first - now < _CERTIFICATE_DAYS * _DAY:
        concerns.append(f"the certificate ends in {(first - now) / _DAY:.1f} days")
    return first


def _space(settings: Settings, concerns: list[str]) -> Iterator[Space]:
    """Of the state folder, and of the mail where that is another file system."""
    seen: set[int] = set()
    for path in (settings.state_dir, settings.store.path.partition("{")[0]):
        folder = path
        while folder and not os.path.isdir(folder):
            folder = os.path.dirname(folder.rstrip("/")) if folder.strip("/") else "/"
        try:
            device = os.stat(folder).st_dev
            if device in seen:
                continue
            seen.add(device)
            left = RealDisk().space_left(folder)
        except OSError as error:
            concerns.append(f"free space of {folder} is not known: {error.strerror}")
            continue
        journal = settings.journal
        share = min(int(left.total_octets * journal.free_space_floor_percent / 100), journal.free_space_floor_most)
        space = Space(folder, left.free_octets, max(journal.free_space_floor, share))
        if space.is_low:
            concerns.append(f"too little free space at {folder}: new mail is refused for now")
        yield space


def number(value: object) -> float:
    """What should be one; 0 where it is not."""
    return float(value) if isinstance(value, int | float) else 0.0
