"""The card of runs side by side: which is best, by how much, and what differs between them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..schemas.federation import Run, Score
from ..schemas.splits import split_text
from ..schemas.strategies import strategy_text
from .card import Card, make_card
from .curves import curves_picture
from .document import Block, Code, Column, Line, Strong, Table
from .numbers import clip, count, duration, plural, share, short_list, size
from .run_details import network_words

__all__ = ["Compared", "compared", "comparison_card", "curve_points"]

_RUNS_SHOWN = 40
_CURVES_DRAWN = 7
_POINTS_DRAWN = 200
_VALUE_LETTERS = 60
#: Of a plan: names and digests, which differ between any two runs and decide nothing more.
_NAMES = ("model", "federation", "sites", "initial_weights_sha256", "architecture", "signature")


@dataclass(frozen=True)
class Compared:
    """One run, as its line of the table.

    Attributes:
        sites: participants, or virtual clients of one host.
        accuracy, loss: of the last global model on the held-out rows; None if not measured.
        bytes: sent and received by all participants.
        seconds: that the run took.
        epsilon: spent so far; None without privacy.
    """

    run: str
    status: str
    strategy: str
    split: str
    sites: int
    rounds: int
    accuracy: float | None
    loss: float | None
    bytes: int
    seconds: float
    epsilon: float | None


def compared(run: Run) -> Compared:
    """The line of a run."""
    plan, report = run.plan, run.report
    hosted = plan.hosted
    last = report.history[-1] if report is not None and report.history else None
    score = _score(run)
    return Compared(
        run=run.name,
        status=run.status,
        strategy=strategy_text(plan.strategy if hosted is None else hosted.strategy),
        split=_split_words(run),
        sites=len(plan.sites) if hosted is None else hosted.clients,
        rounds=run.round,
        accuracy=score.accuracy if score is not None else None if last is None else last.accuracy,
        loss=None if last is None else last.loss,
        bytes=sum(s.sent_bytes + s.received_bytes for s in report.sites) if report else 0,
        seconds=0.0 if report is None else report.elapsed_s,
        epsilon=_epsilon(run),
    )


def comparison_card(runs: Sequence[Run], *, said: str = "") -> Card:
    """Two runs or more, in the order given; ``said`` stands before the finding."""
    lines = [compared(run) for run in runs]
    finding = _finding(runs, lines)
    document: list[Block] = [
        Line.of(Strong(f"{plural(len(runs), 'run')} compared"), f": {said}" if said else "")
    ]
    document.append(Line.of(finding))
    curves = {
        run.name: points for run in runs[:_CURVES_DRAWN] if (points := curve_points(run))
    }  # as many as one can tell apart
    if curves:
        picture = f"Accuracy on the held-out rows after each round. {finding}"
        document.append(curves_picture(picture, curves, across="Round", up="Accuracy"))
    document.append(_results(lines))
    document.append(_plans(lines))
    document.append(_differences(runs))
    document += _cautions(runs)
    if len(runs) > _CURVES_DRAWN:
        document.append(Line.of(f"The first {_CURVES_DRAWN} runs are drawn."))
    document.append(Line.of("One of them: ", Code(f"%ts_runs {clip(runs[0].name)}")))
    return make_card("comparison", document, {"runs": [_data(line) for line in lines]})


def _data(line: Compared) -> dict[str, Any]:
    """JSON values; what JSON cannot write, an infinite epsilon, is null."""
    unknown = line.epsilon is not None and not math.isfinite(line.epsilon)
    return {**vars(line), "epsilon": None if unknown else line.epsilon}


def _finding(runs: Sequence[Run], lines: Sequence[Compared]) -> str:
    scored = [
        (line.accuracy, place) for place, line in enumerate(lines) if line.accuracy is not None
    ]
    if len(scored) < 2:
        return "Fewer than two of them have a score yet, so there is nothing to tell apart."
    scored.sort(key=lambda entry: -entry[0])
    (best, first), (second, other) = scored[0], scored[1]
    if best == second:
        equal = [clip(lines[place].run, 40) for value, place in scored if value == best]
        return f"{short_list(equal)} are equally accurate: {share(best, 3)}."
    name, behind = clip(lines[first].run, 40), clip(lines[other].run, 40)
    said = f"{name} is the most accurate: {share(best, 3)}, then {behind} with {share(second, 3)}"
    one, two = _score(runs[first]), _score(runs[other])
    if one is not None and two is not None and one.low <= two.high:
        return f"{said}; their 95 % intervals overlap, so this may be chance."
    return f"{said}."


def _cautions(runs: Sequence[Run]) -> list[Block]:
    """What makes accuracies of other runs no answer to the same question."""
    rows = {
        (
            None if run.plan.source is None else run.plan.source.sha256,
            run.plan.seed,
            None if run.plan.split is None else run.plan.split.holdout_fraction,
        )
        for run in runs
    }
    found: list[Block] = []
    if len(rows) > 1:
        found.append(
            Line.of(
                "They were scored on different held-out rows (another table, seed or share), so "
                "part of the difference is the rows'."
            )
        )
    unfinished = [clip(run.name, 40) for run in runs if run.status != "completed"]
    if unfinished:
        found.append(Line.of(f"Not completed: {short_list(unfinished)}."))
    return found


def _results(lines: Sequence[Compared]) -> Table:
    columns = (
        Column("Run"),
        Column("Accuracy", "right"),
        Column("Loss", "right"),
        Column("Sent and received", "right"),
        Column("Time", "right"),
        Column("Epsilon", "right"),
    )
    rows = tuple(
        (
            clip(line.run, 40),
            "" if line.accuracy is None else share(line.accuracy, 3),
            "" if line.loss is None else f"{line.loss:.3g}",
            size(line.bytes),
            duration(line.seconds),
            "no privacy" if line.epsilon is None else f"{line.epsilon:.3g}",
        )
        for line in lines[:_RUNS_SHOWN]
    )
    return Table("What came of them", columns, rows, _more(len(lines), len(rows)))


def _plans(lines: Sequence[Compared]) -> Table:
    columns = (
        Column("Run"),
        Column("Strategy"),
        Column("Split"),
        Column("Sites", "right"),
        Column("Rounds", "right"),
    )
    rows = tuple(
        (
            clip(line.run, 40), clip(line.strategy, 40), clip(line.split, 40), count(line.sites),
            count(line.rounds),
        )
        for line in lines[:_RUNS_SHOWN]
    )  # fmt: skip
    return Table("How they were made", columns, rows, _more(len(lines), len(rows)))


def _differences(runs: Sequence[Run]) -> Block:
    """Every entry of the plans that is not the same in all, with who has which value."""
    plans = [_flat(run) for run in runs]
    rows = []
    for key in dict.fromkeys(key for plan in plans for key in plan):
        having: dict[str, list[str]] = {}
        for run, plan in zip(runs, plans, strict=True):
            having.setdefault(plan.get(key, "none"), []).append(clip(run.name, 40))
        if len(having) > 1:
            said = "; ".join(
                f"{clip(v, _VALUE_LETTERS)} in {short_list(n)}" for v, n in having.items()
            )
            rows.append((key, said))
    if not rows:
        return Line.of("Their plans are the same in everything but their names.")
    return Table("What differs between the plans", (Column("Of the plan"), Column("Values")),
                 tuple(rows[:_RUNS_SHOWN]), _more(len(rows), _RUNS_SHOWN))  # fmt: skip


def _flat(run: Run) -> dict[str, str]:
    plan = run.plan
    # A run that measured how fast its clients train tells it in words; that is no choice.
    whole = plan.model_dump(mode="json", exclude={*_NAMES}, exclude_none=True)
    found = {"sites": count(compared(run).sites)}
    if plan.architecture is not None:
        found["network"] = network_words(plan.architecture)
    for key, value in whole.items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        for name, entry in entries:
            if (key, name) in (("hosted", "why"), ("split", "moved"), ("hosted", "clients")):
                continue
            label = f"{key} {name}".strip().replace("_", " ")
            found[label] = entry if isinstance(entry, str) else json.dumps(entry)
    return found


def curve_points(run: Run) -> list[tuple[int, float]]:
    """Round and accuracy of every round, or of some where there are very many."""
    history = run.report.history if run.report is not None else []
    points = [(each.number, each.accuracy) for each in history if each.accuracy is not None]
    step = -(-len(points) // _POINTS_DRAWN) if points else 1
    return [*points[:-1:step], points[-1]] if points else []


def _score(run: Run) -> Score | None:
    return None if run.report is None else run.report.federated


def _epsilon(run: Run) -> float | None:
    told: Any = None if run.report is None else run.report.privacy
    if told is not None:
        return float("inf") if told.epsilon is None else float(told.epsilon)
    if run.statement is None:
        return None
    return float("inf") if run.statement.epsilon is None else float(run.statement.epsilon)


def _split_words(run: Run) -> str:
    split = run.plan.split
    if split is None:
        return "the sites' own"
    return f"by {clip(split.column or '', 30)}" if split.kind == "column" else split_text(split)


def _more(all_of_them: int, shown: int) -> str:
    rest = all_of_them - shown
    return f"and {count(rest)} more" if rest > 0 else ""
