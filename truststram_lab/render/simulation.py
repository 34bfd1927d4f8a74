"""Many virtual clients on a card: as quantiles, because nobody reads a thousand lines."""

from __future__ import annotations

from ..schemas.federation import Run, RunReport
from ..schemas.simulation import Failures, Hosted, Quantiles, hostile_text
from .document import Block, Column, Line, Table
from .numbers import clip, count, percent, plural, share

__all__ = ["clients_lines", "failures_words", "hosted_rows"]

_COLUMNS = (
    Column("Of a client"),
    Column("Least", "right"),
    Column("Quarter", "right"),
    Column("Half", "right"),
    Column("Three quarters", "right"),
    Column("Most", "right"),
)
_LOSING_SHOWN = 5


def failures_words(failures: Failures) -> str:
    """What goes wrong in a round, in words."""
    parts = []
    if failures.drop:
        parts.append(f"{percent(failures.drop)} drop out")
    if failures.stragglers:
        parts.append(f"{percent(failures.stragglers)} straggle")
    if failures.hostile is not None:
        parts.append(f"hostile {hostile_text(failures.hostile)}")
    return ", ".join(parts) or "none"


def hosted_rows(hosted: Hosted) -> list[tuple[str, str]]:
    """What the plan's fold says of the host."""
    return [
        ("virtual clients", f"{count(hosted.clients)}, {percent(hosted.fraction)} asked a round"),
        ("clients' strategy", str(hosted.strategy)),
        ("failures", failures_words(hosted.failures)),
        ("trained by", f"{hosted.backend}, {count(hosted.chunk)} at once. {clip(hosted.why, 200)}"),
    ]


def clients_lines(run: Run, report: RunReport) -> list[Block]:
    """Who has what, and what each gets by itself and together."""
    found = report.clients
    if run.plan.hosted is None or found is None:
        return []
    numbers = [("rows", found.rows, False), ("classes", found.classes, False),
               ("alone, on its own mix", found.local, True),
               ("federated, on its own mix", found.federated, True)]  # fmt: skip
    rows = tuple(
        _row(name, values, shared=shared) for name, values, shared in numbers if values is not None
    )
    hosted = run.plan.hosted
    blocks: list[Block] = [
        Table(f"{plural(hosted.clients, 'virtual client')}, simulated", _COLUMNS, rows)
    ]
    if found.local is None:
        return blocks
    if not found.lost:
        return [*blocks, Line.of("No client would do better alone.")]
    names = [
        f"{clip(name, 30)} ({share(alone)} alone, {share(together)} federated)"
        for name, alone, together in found.losing[:_LOSING_SHOWN]
    ]
    return [
        *blocks,
        Line.of(
            f"{count(found.lost)} of {plural(hosted.clients, 'client')} would do better alone, "
            "on their own mix of classes: "
            f"{'; '.join(names)}."
        ),
    ]


def _row(name: str, values: Quantiles, *, shared: bool) -> tuple[str, ...]:
    numbers = (values.least, values.low, values.middle, values.high, values.greatest)
    return (name, *(share(number) if shared else f"{number:g}" for number in numbers))
