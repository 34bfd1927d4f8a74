"""Where two ways to explain the same rows agree, and where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .bars import bar
from .card import Card, make_card
from .document import Bar, Block, Column, Fold, Line, Strong, Table
from .numbers import clip, count, percent, plural

__all__ = ["ComparedColumn", "ExplanationAgreement", "agreement_card"]

_SHOWN = 12


@dataclass(frozen=True)
class ComparedColumn:
    """One column: its mean share of the contributions by each way, in [0, 1], and how often
    both point the same way (None where one of them never uses it)."""

    name: str
    first: float
    second: float
    same_sign: float | None


@dataclass(frozen=True)
class ExplanationAgreement:
    """Two ways over the same rows.

    Args:
        first, second: their names.
        rank: mean over rows of Spearman's correlation of the magnitudes; None for one column.
        same_top: share of the rows in which both name the same column first.
        same_sign: share of the rows' five largest columns in which both have the same sign.
        fit: median R squared of the local models; None where there are none.
    """

    first: str
    second: str
    rows: int
    rank: float | None
    same_top: float
    same_sign: float | None
    fit: float | None
    columns: tuple[ComparedColumn, ...]


def agreement_card(found: ExplanationAgreement, spaces: tuple[str, str]) -> Card:
    """The agreement in three numbers, the columns that differ most, and why they may differ."""
    rank = "not defined for one column" if found.rank is None else f"{found.rank:.2f}"
    signs = "" if found.same_sign is None else f", the same sign in {percent(found.same_sign)}"
    blocks: list[Block] = [
        Line.of(
            Strong(f"{clip(found.first)} and {clip(found.second)}"),
            f" over {plural(found.rows, 'row')}: the same column first in "
            f"{percent(found.same_top)}{signs}; rank correlation {rank}.",
        ),
        _table(found),
        Line.of(
            "They answer different questions: Shapley values share out the difference from the "
            "background among the columns; LIME fits a line to what happens when columns leave "
            "this row's bin. Where they differ, a column's effect depends on the others, or the "
            "line fits badly" + ("." if found.fit is None else f" (median R² {found.fit:.2f}).")
        ),
        Fold(
            "What is compared",
            (
                Line.of(f"{found.first}: {spaces[0]}. {found.second}: {spaces[1]}."),
                Line.of(
                    "A share is a column's part of the sum of all magnitudes in a row, averaged "
                    "over the rows; signs are compared in each row's five largest columns."
                ),
            ),
        ),
    ]
    data = {
        "first": found.first,
        "second": found.second,
        "rows": found.rows,
        "rank": found.rank,
        "same_top": found.same_top,
        "same_sign": found.same_sign,
        "fit": found.fit,
        "columns": [[c.name, c.first, c.second, c.same_sign] for c in found.columns],
    }
    return make_card("agreement", blocks, data)


def _table(found: ExplanationAgreement) -> Table:
    ordered: Sequence[ComparedColumn] = sorted(
        found.columns, key=lambda column: -abs(column.first - column.second)
    )
    longest = max((max(c.first, c.second) for c in ordered), default=0.0) or 1.0
    rows = tuple(
        (
            clip(column.name),
            Bar(bar(column.first / longest, 8)),
            percent(column.first),
            Bar(bar(column.second / longest, 8)),
            percent(column.second),
            "" if column.same_sign is None else percent(column.same_sign),
        )
        for column in ordered[:_SHOWN]
    )
    columns = (
        Column("Column"),
        Column(),
        Column(clip(found.first, 24), "right"),
        Column(),
        Column(clip(found.second, 24), "right"),
        Column("Same sign", "right"),
    )
    left = len(ordered) - len(rows)
    rest = f"and {count(left)} more, which differ less" if left else ""
    return Table("Share of each column, those that differ most first", columns, rows, rest)
