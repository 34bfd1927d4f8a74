"""The card of a sweep: a line a run, curves, and which value is best."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..schemas.federation import Run
from .card import Card, LiveCard, make_card
from .comparison import Compared, compared, curve_points
from .curves import curves_picture
from .document import Bar, Block, Cell, Code, Column, Line, Strong, Table
from .numbers import clip, count, duration, plural, share

__all__ = ["SweepLine", "live_sweep_card", "sweep_card"]

_RUNS_SHOWN = 60
_CURVES_DRAWN = 7


@dataclass(frozen=True)
class SweepLine:
    """One run of a sweep: what was set, the seed, and the run as it stands."""

    label: str
    seed: int
    run: Run


def live_sweep_card(lines: Sequence[SweepLine], *, asked: int) -> LiveCard:
    """The sweep as it goes on: which run of how many, and what is known of each."""
    document: list[Block] = []
    if lines:
        run = lines[-1].run
        document.append(
            Line.of(
                Strong(f"Sweep of {plural(asked, 'run')}"),
                f": run {count(len(lines))} of {count(asked)}, {clip(lines[-1].label)}, round "
                f"{count(run.round)}/{count(run.plan.rounds)}",
            )
        )
        document.append(_runs(lines))
    return LiveCard.of(document)


def sweep_card(
    lines: Sequence[SweepLine], *, status: str, asked: int, best: str | None, deployed: str | None
) -> Card:
    """All runs of a sweep that were begun.

    Args:
        best: the name of the best value's first run.
        deployed: the version that is served from now on.
    """
    found = [compared(line.run) for line in lines]
    finding = _finding(lines, found, best)
    stopped = "" if status == "completed" else f" of {count(asked)}; stopped"
    document: list[Block] = [
        Line.of(Strong(f"Sweep: {plural(len(lines), 'run')}{stopped}"), f". {finding}")
    ]
    curves = {
        line.label: points
        for line in lines
        if line.seed == lines[0].seed and (points := curve_points(line.run))
    }
    if curves:
        said = f"Accuracy on the held-out rows after each round. {finding}"
        drawn = dict(list(curves.items())[:_CURVES_DRAWN])
        document.append(curves_picture(said, drawn, across="Round", up="Accuracy"))
    seeds = len({line.seed for line in lines})
    if seeds > 1:
        document.append(_values(lines, found))
    document.append(_runs(lines))
    document.append(Line.of(*_last_words(lines, status, seeds, best, deployed)))
    data = {
        "status": status,
        "asked": asked,
        "best": best,
        "deployed": deployed,
        "runs": [
            {"label": line.label, "seed": line.seed, "run": one.run, "status": one.status,
             "accuracy": one.accuracy, "loss": one.loss, "seconds": one.seconds}
            for line, one in zip(lines, found, strict=True)
        ],
    }  # fmt: skip
    return make_card("sweep", document, data)


def _finding(lines: Sequence[SweepLine], found: Sequence[Compared], best: str | None) -> str:
    chosen = next((line for line in lines if line.run.name == best), None)
    if chosen is None:
        return "Fewer than two values are completed, so there is no best one."
    by_label = _scores(lines, found)
    mine = by_label.pop(chosen.label)
    # Only who has as many seeds is compared.
    rest = {label: them for label, them in by_label.items() if len(them) == len(mine)}
    label, second = max(rest.items(), key=lambda entry: statistics.mean(entry[1]))
    ahead, behind = statistics.mean(mine), statistics.mean(second)
    said = (
        f"Best by held-out accuracy: {clip(chosen.label)} with {share(ahead, 3)}, then "
        f"{clip(label)} with {share(behind, 3)}"
    )
    if len(mine) == 1:
        return f"{said}; each is one run with one seed, which says little."
    gaps = [one - two for one, two in zip(mine, second, strict=True)]
    wins = sum(gap > 0 for gap in gaps)
    return f"{said}; ahead in {count(wins)} of {plural(len(gaps), 'seed')}."


def _scores(lines: Sequence[SweepLine], found: Sequence[Compared]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for line, one in zip(lines, found, strict=True):
        if one.status == "completed" and one.accuracy is not None:
            scores.setdefault(line.label, []).append(one.accuracy)
    return scores


def _values(lines: Sequence[SweepLine], found: Sequence[Compared]) -> Table:
    columns = (
        Column("Value"),
        Column("Mean accuracy", "right"),
        Column(""),
        Column("Least", "right"),
        Column("Most", "right"),
        Column("Seeds", "right"),
    )
    rows: list[tuple[Cell, ...]] = []
    for label, scores in _scores(lines, found).items():
        mean = statistics.mean(scores)
        rows.append(
            (
                clip(label), share(mean, 3), Bar.of(mean), share(min(scores), 3),
                share(max(scores), 3), count(len(scores)),
            )
        )  # fmt: skip
    return Table("Each value over its seeds", columns, tuple(rows[:_RUNS_SHOWN]))


def _runs(lines: Sequence[SweepLine]) -> Table:
    seeds = len({line.seed for line in lines}) > 1
    columns = [Column("Value")] + [Column("Seed", "right")] * seeds
    columns += [
        Column("Accuracy", "right"),
        Column(""),
        Column("Loss", "right"),
        Column("Rounds", "right"),
        Column("Time", "right"),
        Column("Run"),
    ]
    rows = []
    for line in lines[-_RUNS_SHOWN:]:
        one = compared(line.run)
        known = one.accuracy is not None
        rows.append(
            (
                clip(line.label),
                *([count(line.seed)] * seeds),
                share(one.accuracy, 3) if one.accuracy is not None else one.status,
                Bar.of(one.accuracy) if one.accuracy is not None and known else "",
                "" if one.loss is None else f"{one.loss:.3g}",
                f"{count(one.rounds)}/{count(line.run.plan.rounds)}",
                duration(one.seconds),
                one.run if one.status == "completed" else f"{one.run}, {one.status}",
            )
        )
    rest = len(lines) - len(rows)
    more = f"and {count(rest)} more; to_frame() has all" if rest > 0 else ""
    return Table("The runs", tuple(columns), tuple(rows), more)


def _last_words(
    lines: Sequence[SweepLine], status: str, seeds: int, best: str | None, deployed: str | None
) -> list[str | Code]:
    words: list[str | Code] = []
    if deployed is not None:
        words.append(f"Deployed here: {deployed}, the best value's run")
        words.append(" with the first seed. " if seeds > 1 else ". ")
    elif status == "completed":
        words.append("Nothing was deployed. ")
    else:
        words.append("Stopped: nothing was deployed, and what is completed stays. ")
    if best is not None:
        words.append("It was chosen by the rows that score it, so its score is a little too good. ")
    if lines:
        words += ["One of them: ", Code(f"%ts_runs {clip(best or lines[0].run.name)}")]
    return words
