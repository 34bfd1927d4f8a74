"""Many virtual clients on a card: as quantiles, because nobody reads a thousand lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..schemas.federation import Run, RunReport
from ..schemas.run_privacy import RunPrivacy
from ..schemas.simulation import ClientsReport, Failures, Hosted, Quantiles, hostile_text
from .card import Card, make_card
from .document import Block, Code, Column, Fold, Line, Strong, Table, facts
from .numbers import clip, count, percent, plural, share

__all__ = ["clients_lines", "failures_words", "hosted_rows", "simulated_card"]

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
        ("own models", "none" if hosted.personal is None else clip(str(hosted.personal), 80)),
        ("trained by", f"{hosted.backend}, {count(hosted.chunk)} at once. {clip(hosted.why, 200)}"),
    ]


def clients_lines(run: Run, report: RunReport) -> list[Block]:
    """Who has what, and what each gets by itself and together."""
    found = report.clients
    if run.plan.hosted is None or found is None:
        return []
    where = "its own mix" if run.plan.signature is not None else "its own rows"
    numbers = [("rows", found.rows, False), ("classes", found.classes, False),
               (f"alone, on {where}", found.local, True),
               (f"federated, on {where}", found.federated, True),
               (f"own model, on {where}", found.personal, True)]  # fmt: skip
    rows = tuple(
        _row(name, values, shared=shared) for name, values, shared in numbers if values is not None
    )
    hosted = run.plan.hosted
    blocks: list[Block] = [
        Table(f"{plural(hosted.clients, 'virtual client')}, simulated", _COLUMNS, rows)
    ]
    if found.local is None:
        return blocks
    own = _own_words(found, hosted)
    if not found.lost:
        return [*blocks, Line.of(f"No client would do better alone.{own}")]
    names = [
        f"{clip(name, 30)} ({share(alone)} alone, {share(together)} federated)"
        for name, alone, together in found.losing[:_LOSING_SHOWN]
    ]
    return [
        *blocks,
        Line.of(
            f"{count(found.lost)} of {plural(hosted.clients, 'client')} would do better alone, "
            f"{'on their own mix of classes' if run.plan.signature else 'on their own rows'}: "
            f"{'; '.join(names)}.{own}"
        ),
    ]


def _own_words(found: ClientsReport, hosted: Hosted) -> str:
    if found.lost_personal is None:
        return ""
    return (
        f" With a model of its own beside the federation's ({clip(str(hosted.personal), 60)}), "
        f"{count(found.lost_personal)} would."
    )


def _row(name: str, values: Quantiles, *, shared: bool) -> tuple[str, ...]:
    numbers = (values.least, values.low, values.middle, values.high, values.greatest)
    return (name, *(share(number) if shared else f"{number:.4g}" for number in numbers))


def simulated_card(
    *,
    status: str,
    history: Sequence[Mapping[str, float | int | None]],
    clients: Sequence[Mapping[str, float | int | None]],
    losing: Sequence[int],
    record: Mapping[str, Any],
    run: str | None = None,
    privacy: RunPrivacy | None = None,
) -> Card:
    """A federation of any torch module, simulated in one kernel.

    Args:
        history, clients, losing, record, run, privacy: as of the result of ``simulate``.
    """
    options = record["options"]
    done = f"{plural(len(history), 'round')} of {count(record['rounds_asked'])}"
    head = Line.of(
        Strong(f"Simulated federation: {plural(len(clients), 'client')}, {done}, {status}"),
        aside=clip(options["strategy"], 30),
    )
    blocks: list[Block] = [head]
    if run is not None:
        blocks.append(Line.of("On the platform: ", Code(f"%ts_runs {clip(run, 60)}")))
    if history:
        blocks.append(Line.of(_last_round(history)))
    rows = tuple(
        _row(words, found, shared=key.endswith("accuracy"))
        for key, words in _SIMULATED
        if (found := _quantiles(clients, key)) is not None
    )
    where = "rows trained on" if options["holdout"] == 0 else "own held-out rows"
    blocks.append(Table(f"Of a client, on its {where}", _COLUMNS, rows))
    if any(client["local_loss"] is not None for client in clients):
        blocks.append(Line.of(_losers(clients, losing)))
    if privacy is not None and privacy.statement is not None:
        blocks.append(Line.of(Strong("Privacy: "), clip(privacy.statement.text, 600)))
        blocks.append(Line.of(clip(f"{privacy.statement.outside} {privacy.statistics}", 400)))
    told = [(name, str(value)) for name, value in options.items() if value not in (None, [])]
    told.append(("trained by", clip(record["why"], 200)))
    blocks.append(Fold("Record", (facts("What repeats this run", told),)))
    data = {"status": status, "run": run, "history": list(history), "losing": list(losing),
            "record": dict(record), "clients": [dict(client) for client in clients]}  # fmt: skip
    return make_card("simulation", blocks, data)


_SIMULATED = (
    ("rows", "rows"),
    ("local_accuracy", "alone, accuracy"),
    ("global_accuracy", "global model, accuracy"),
    ("personal_accuracy", "own model, accuracy"),
    ("local_loss", "alone, loss"),
    ("global_loss", "global model, loss"),
    ("personal_loss", "own model, loss"),
)


def _last_round(history: Sequence[Mapping[str, float | int | None]]) -> str:
    last = history[-1]
    accuracy, loss = last["accuracy"], last["loss"]
    if accuracy is not None:
        return f"Accuracy of the global model on all clients' rows: {share(accuracy)}."
    return "No client has rows to score." if loss is None else f"Loss: {loss:.4g}."


def _losers(clients: Sequence[Mapping[str, float | int | None]], losing: Sequence[int]) -> str:
    if not losing:
        return "No client would do better alone."
    names = []
    for place in losing[:_LOSING_SHOWN]:
        line = clients[place]
        kind = "loss" if line["local_accuracy"] is None else "accuracy"
        alone, together = line[f"local_{kind}"], line[f"global_{kind}"]
        if alone is None or together is None:
            continue
        names.append(f"client {place} ({kind} {alone:.2f} alone, {together:.2f} with the others)")
    more = len(losing) - len(names)
    rest = f"; and {count(more)} more" if more else ""
    return f"{plural(len(losing), 'client')} would do better alone: {'; '.join(names)}{rest}."


def _quantiles(clients: Sequence[Mapping[str, float | int | None]], key: str) -> Quantiles | None:
    values = sorted(float(found) for line in clients if (found := line.get(key)) is not None)
    if not values:
        return None

    def at(part: float) -> float:
        place = part * (len(values) - 1)
        low = int(place)
        high = min(low + 1, len(values) - 1)
        return values[low] + (place - low) * (values[high] - values[low])

    return Quantiles(
        least=values[0], low=at(0.25), middle=at(0.5), high=at(0.75), greatest=values[-1],
        mean=sum(values) / len(values),
    )  # fmt: skip
