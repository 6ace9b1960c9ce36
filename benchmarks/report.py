"""What a workload found out, and the table made from it."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import date

from attrs import asdict, field, frozen


@frozen
class Result:
    """One line. ``seconds`` is wall time for ``operations``; latencies in milliseconds."""

    workload: str
    variant: str
    operations: int
    seconds: float
    cpu_seconds: float
    latencies: Sequence[float] = field(default=(), repr=False)
    memory_kib: int = 0
    note: str = ""

    @property
    def rate(self) -> float:
        return self.operations / self.seconds if self.seconds else 0.0

    @property
    def cpu_micros(self) -> float:
        return self.cpu_seconds / self.operations * 1e6 if self.operations else 0.0

    def percentile(self, share: float) -> float | None:
        if len(self.latencies) < 2:
            return None
        return statistics.quantiles(self.latencies, n=1000, method="inclusive")[int(share * 1000) - 1]


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(results: Sequence[Result]) -> str:
    head = ("workload", "variant", "ops/s", "wall s", "cpu µs", "p50 ms", "p99 ms", "PSS MiB", "")
    rows = [head]
    for result in results:
        rows.append(
            (
                result.workload,
                result.variant,
                number(result.rate),
                number(result.seconds),
                number(result.cpu_micros),
                number(result.percentile(0.5)),
                number(result.percentile(0.99)),
                number(result.memory_kib / 1024) if result.memory_kib else "",
                result.note,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 or column == len(head) - 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def heading() -> str:
    python = sys.version.split()[0]
    return f"{date.today()}  {platform.machine()}  CPython {python}  {platform.system()} {platform.release()}"


def as_json(results: Sequence[Result]) -> str:
    return "\n".join(
        json.dumps(asdict(result) | {"latencies": None, "p50": result.percentile(0.5), "p99": result.percentile(0.99)})
        for result in results
    )
