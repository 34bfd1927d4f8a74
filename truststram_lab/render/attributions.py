"""Explanations made in the notebook: one row's waterfall, or what matters over many rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .bars import sparkline
from .card import Card, make_card
from .document import Bar, Block, Cell, Column, Fold, Line, Table, facts
from .numbers import clip, count, plural, scalar, share, signed

__all__ = [
    "Importance",
    "MethodFacts",
    "Waterfall",
    "importance_card",
    "none_card",
    "waterfall_card",
]

_SHOWN = 10
_FOLDED = 60
_CLASSES_SHOWN = 12
_BAR_CELLS = 10
#: Of the largest number in the sum: float32 models, not a wrong method.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class MethodFacts:
    """How the numbers came about.

    Args:
        method: its name for people; ``meaning``: a sentence or two.
        space: what the numbers are of, such as ``Margin``.
        background: what stands for an absent column, in words.
        sampled: what is said of the error, empty where nothing was sampled.
        notes: warnings that change how the numbers read.
    """

    method: str
    meaning: str
    space: str
    background: str
    sampled: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waterfall:
    """One row and one output.

    Args:
        label: the class; empty for a value.
        parts: name, value shown, contribution, standard error or None.
        fit: R squared of a local model; None where contributions are exact by construction.
    """

    label: str
    base: float
    output: float
    parts: tuple[tuple[str, Any, float, float | None], ...]
    fit: float | None = None

    @property
    def residual(self) -> float:
        """What of the output is not attributed."""
        return self.output - self.base - math.fsum(part[2] for part in self.parts)

    @property
    def adds_up(self) -> bool:
        """Whether the residual is rounding."""
        largest = max(1.0, abs(self.output), abs(self.base), *(abs(p[2]) for p in self.parts), 0.0)
        return abs(self.residual) <= _TOLERANCE * largest


@dataclass(frozen=True)
class Importance:
    """One output over many rows: name, mean magnitude, mean, and the contributions' spread."""

    label: str
    parts: tuple[tuple[str, float, float, tuple[float, ...]], ...] = field(default=())


def waterfall_card(falls: Sequence[Waterfall], chosen: int, about: MethodFacts) -> Card:
    """One row: the chosen class open, the others behind folds.

    Args:
        falls: one for each output, at least one.
        chosen: the place of the output that is shown open.
    """
    blocks: list[Block] = _fall_blocks(falls[chosen], about)
    blocks.extend(Line.of(note) for note in about.notes)
    others = [fall for place, fall in enumerate(falls) if place != chosen]
    blocks.extend(
        Fold(f"Instead: {clip(fall.label, 40)}", (_fall_table(fall, about),))
        for fall in others[:_CLASSES_SHOWN]
    )
    if len(others) > _CLASSES_SHOWN:
        blocks.append(Line.of(f"{plural(len(others) - _CLASSES_SHOWN, 'more class')} not shown."))
    blocks.append(_meaning_fold(falls[chosen], about))
    fall = falls[chosen]
    data = {
        "method": about.method,
        "output": about.space,
        "class": fall.label,
        "base_value": _json(fall.base),
        "output_value": _json(fall.output),
        "residual": _json(fall.residual),
        "fit": None if fall.fit is None else _json(fall.fit),
        "contributions": [
            {"feature": name, "value": _plain(value), "contribution": _json(amount)}
            for name, value, amount, _ in fall.parts
        ],
    }
    return make_card("explanation", blocks, data)


def importance_card(
    found: Sequence[Importance], rows: int, about: MethodFacts, worst_residual: float
) -> Card:
    """Many rows: the mean magnitude of every column's contributions, the largest first."""
    blocks: list[Block] = [_importance_table(found[0], rows, about)]
    blocks.extend(Line.of(note) for note in about.notes)
    blocks.append(Line.of(f"{about.method}; background: {about.background}"))
    blocks.extend(
        Fold(f"Instead: {clip(other.label, 40)}", (_importance_table(other, rows, about),))
        for other in found[1 : _CLASSES_SHOWN + 1]
    )
    told = [("largest residual", f"{worst_residual:.2g}")]
    if about.sampled:
        told.append(("standard error", about.sampled))
    blocks.append(
        Fold("What they mean", (Line.of(clip(about.meaning, 600)), facts("The sums", told)))
    )
    data = {
        "method": about.method,
        "output": about.space,
        "rows": rows,
        "importance": [
            {
                "class": part.label,
                "columns": [{"feature": n, "mean_abs": _json(m)} for n, m, _, _ in part.parts],
            }
            for part in found
        ],
    }
    return make_card("explanation-set", blocks, data)


def none_card(what: str) -> Card:
    """An explainer that returned nothing."""
    said = f"no explanation returned: {what} gave None."
    return make_card("explanation", [Line.of(said)], {"contributions": []})


def _fall_blocks(fall: Waterfall, about: MethodFacts) -> list[Block]:
    said = f"{about.method}; background: {about.background}"
    if fall.fit is not None:
        said += f"; the local model explains {share(max(fall.fit, 0.0))} of the variance (R²)"
    return [_fall_table(fall, about), Line.of(said)]


def _fall_table(fall: Waterfall, about: MethodFacts) -> Table:
    ordered = sorted(fall.parts, key=lambda part: -_size(part[2]))
    shown, others = ordered[:_SHOWN], ordered[_SHOWN:]
    entries: list[tuple[str, str, float, float | None]] = [
        (clip(name), scalar(_plain(value)), amount, error) for name, value, amount, error in shown
    ]
    if others:
        together = math.fsum(part[2] for part in others)
        entries.append((plural(len(others), "other"), "", together, None))
    if not fall.adds_up:
        missed = "not attributed by the method" if fall.fit is None else "missed by the local model"
        entries.append((missed, "", fall.residual, None))
    longest = max((_size(entry[2]) for entry in entries), default=0.0) or 1.0
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            value,
            Bar.of(_size(amount) / longest, _BAR_CELLS, negative=amount < 0),
            signed(amount),
            f"± {error:.2g}" if error else "",
        )
        for name, value, amount, error in entries
    ]
    start = signed(fall.base).removeprefix("+")
    end = signed(fall.output).removeprefix("+")
    mark = "✓" if fall.adds_up else "with what is missed"
    rows.append((f"{start} and all of these", "", "", f"= {end}", mark))
    columns = (Column(), Column(align="right"), Column(), Column(align="right"), Column())
    return Table(f"{_titled(about.space, fall.label)}, from {start}", columns, tuple(rows))


def _importance_table(found: Importance, rows: int, about: MethodFacts) -> Table:
    ordered = sorted(found.parts, key=lambda part: -_size(part[1]))
    shown, left = ordered[: 2 * _SHOWN], len(ordered) - 2 * _SHOWN
    longest = max((_size(part[1]) for part in shown), default=0.0) or 1.0
    lines: tuple[tuple[Cell, ...], ...] = tuple(
        (
            clip(name),
            Bar.of(_size(mean_size) / longest, _BAR_CELLS),
            signed(mean_size).removeprefix("+"),
            signed(mean),
            sparkline(spread),
        )
        for name, mean_size, mean, spread in shown
    )
    return Table(
        f"{_titled(about.space, found.label)}: what each column adds over {plural(rows, 'row')}",
        (
            Column("Column"),
            Column(""),
            Column("Mean size", "right"),
            Column("Mean", "right"),
            Column("Lowest to highest"),
        ),
        lines,
        f"and {plural(left, 'more column')}" if left > 0 else "",
    )


def _meaning_fold(fall: Waterfall, about: MethodFacts) -> Fold:
    ordered = sorted(fall.parts, key=lambda part: -_size(part[2]))
    others = ordered[_SHOWN : _SHOWN + _FOLDED]
    blocks: list[Block] = [Line.of(clip(about.meaning, 600))]
    if others:
        rows = tuple(
            (clip(name), scalar(_plain(value)), signed(amount)) for name, value, amount, _ in others
        )
        left = len(ordered) - _SHOWN - len(others)
        blocks.append(
            Table(
                f"The {plural(len(ordered) - _SHOWN, 'other')}",
                (Column("Column"), Column("Value", "right"), Column("Adds", "right")),
                rows,
                f"and {plural(left, 'more column')}" if left > 0 else "",
                newspaper=True,
            )
        )
    told = [
        ("start (base value)", _precise(fall.base)),
        ("end (output value)", _precise(fall.output)),
        ("residual", f"{fall.residual:.2g}"),
        ("standard error", about.sampled or "none, nothing was sampled"),
        ("background", about.background),
        ("columns", count(len(fall.parts))),
    ]
    blocks.append(facts("The sum", told))
    return Fold("What the numbers mean, and all of them", tuple(blocks))


def _titled(space: str, label: str) -> str:
    return f"{space} towards {clip(label, 40)}" if label else space


def _size(value: float) -> float:
    return abs(value) if math.isfinite(value) else math.inf


def _precise(value: float) -> str:
    return f"{value:+.4f}" if 0.00005 <= abs(value) < 1e9 else f"{value:+.2g}" if value else "0"


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)
