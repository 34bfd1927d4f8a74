"""How rows are dealt to simulated sites, and how that is spelt."""

from __future__ import annotations

import math
from typing import Literal, get_args

from pydantic import Field

from ..exceptions import InvalidInputError, nearest
from .base import Schema

__all__ = ["SPLIT_EXAMPLES", "Split", "parse_split", "split_text"]

SplitKind = Literal["iid", "dirichlet", "shards", "quantity", "column", "given"]

#: What a person can write; each is a whole ``--split``.
SPLIT_EXAMPLES = ("dirichlet:0.1", "dirichlet:0.5", "dirichlet:100", "iid", "shards:2",
                  "quantity:0.5")  # fmt: skip

_MAX_SHARDS = 1_000
_MAX_ALPHA = 1e6


class Split(Schema):
    """How the rows are dealt to the sites.

    ``iid``: as cards are; ``dirichlet``: label skew of concentration ``alpha``; ``shards``: each
    site has ``shards`` pieces of the rows sorted by class; ``quantity``: size skew of
    concentration ``alpha``; ``column``: by the values of ``column``; ``given``: the owner
    brought the sites.

    Attributes:
        moved: rows that were moved from the largest sites to those that had got too few.
    """

    kind: SplitKind
    alpha: float | None = None
    shards: int | None = None
    column: str | None = None
    holdout_fraction: float = Field(default=0.25, ge=0, lt=1)
    allow_one_class: bool = False
    moved: int = 0


def parse_split(text: str) -> Split:
    """The split that a text names: ``iid``, ``dirichlet:0.5``, ``shards:2``, ``quantity:0.5``.

    The number may be left out: 0.5 for a concentration, 2 for shards.

    Raises:
        InvalidInputError: it names none; the nearest is in the sentence.
    """
    kind, colon, number = text.strip().partition(":")
    if kind == "iid" and not colon:
        return Split(kind="iid")
    if kind in ("dirichlet", "quantity"):
        alpha = _number(number or "0.5")
        if 0 < alpha <= _MAX_ALPHA:
            return Split(kind="dirichlet" if kind == "dirichlet" else "quantity", alpha=alpha)
    if kind == "shards":
        shards = _number(number or "2")
        if 1 <= shards <= _MAX_SHARDS and shards == int(shards):
            return Split(kind="shards", shards=int(shards))
    known = [name for name in get_args(SplitKind) if name not in ("column", "given")]
    close = nearest(kind, known, most=1)
    hint = f"did you mean {close[0]}? " if close and close[0] != kind else ""
    raise InvalidInputError(
        f"{text!r} is not a split; {hint}write dirichlet:ALPHA with ALPHA above 0, such as "
        "dirichlet:0.5 (small: sites differ much; 100: all alike), iid, shards:2 or "
        "quantity:0.5, or deal by a column with --by.",
        field="split",
        choices=list(SPLIT_EXAMPLES),
    )


def split_text(split: Split) -> str:
    """The text that ``parse_split`` reads back; ``dirichlet`` for one that has no text."""
    if split.alpha is not None:
        return f"{split.kind}:{split.alpha!r}"
    if split.shards is not None:
        return f"shards:{split.shards}"
    return "iid" if split.kind == "iid" else "dirichlet"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
