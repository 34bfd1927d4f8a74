"""The card of a run that was computed again."""

from __future__ import annotations

from collections.abc import Sequence

from ..schemas.federation import Run
from ..schemas.replays import RoundReplay
from .card import Card, make_card, plain_data
from .document import Block, Column, Line, Strong, Table
from .numbers import clip, count, plural

__all__ = ["replay_card"]

_ROUNDS_SHOWN = 40


def replay_card(run: Run, replays: Sequence[RoundReplay]) -> Card:
    """Which rounds came out the same, bit for bit, and what differs in the others."""
    other = [each for each in replays if not each.equal]
    noised = sum(each.noised for each in replays)
    rounds = plural(len(replays), "round")
    said = (
        f"{rounds} computed again from the stored updates: all equal, bit for bit."
        if not other
        else f"{rounds} computed again from the stored updates: {count(len(other))} differ."
    )
    document: list[Block] = [Line.of(Strong(f"Run {clip(run.name)}"), f": {said}")]
    if noised:
        document.append(
            Line.of(
                f"{plural(noised, 'round')} had noise from the platform, which cannot be drawn "
                "again: the stored noised mean was taken, and everything after it computed."
            )
        )
    if run.plan.privacy is not None and not noised:
        document.append(
            Line.of(
                "The sites' noise is inside their stored updates; how they drew it cannot be "
                "repeated."
            )
        )
    document.append(_rounds(replays))
    if other:
        document.append(_differences(other))
    data = {"run": run.name, "rounds": [plain_data(each) for each in replays]}
    return make_card("replay", document, data)


def _rounds(replays: Sequence[RoundReplay]) -> Table:
    shown = [each for each in replays if not each.equal][:_ROUNDS_SHOWN]
    shown += [each for each in replays if each.equal][: _ROUNDS_SHOWN - len(shown)]
    rows = tuple(
        (
            count(each.number),
            count(each.updates),
            "equal" if each.equal else "differs",
            each.expected[:12],
            each.found[:12],
        )
        for each in sorted(shown, key=lambda each: each.number)
    )
    columns = (
        Column("Round", "right"),
        Column("Updates", "right"),
        Column("Result"),
        Column("Stored sha256"),
        Column("Computed sha256"),
    )
    rest = len(replays) - len(rows)
    more = f"and {plural(rest, 'more round')}" if rest else ""
    return Table("Round by round", columns, rows, more)


def _differences(other: Sequence[RoundReplay]) -> Table:
    found = [(each.number, entry) for each in other for entry in each.differences]
    rows = tuple(
        (
            count(number),
            clip(entry.name, 40),
            f"{count(entry.differing)} of {count(entry.coordinates)}",
            "other shape" if entry.largest is None else f"{entry.largest:.3g}",
        )
        for number, entry in found[:_ROUNDS_SHOWN]
    )
    columns = (
        Column("Round", "right"),
        Column("Array"),
        Column("Numbers that differ", "right"),
        Column("By at most", "right"),
    )
    rest = len(found) - len(rows)
    return Table("What differs", columns, rows, f"and {plural(rest, 'more array')}" if rest else "")
