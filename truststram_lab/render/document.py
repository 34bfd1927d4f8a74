"""What a card says, before it is HTML or text: the one source of both.

A card is a list of blocks. Because both forms are made of the same blocks, no fact can be
in one and not in the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .bars import bar

__all__ = [
    "Bar",
    "Block",
    "Cell",
    "Code",
    "Column",
    "Document",
    "Fold",
    "Inline",
    "Line",
    "Picture",
    "Strong",
    "Table",
    "facts",
    "inlines",
]


@dataclass(frozen=True)
class Strong:
    """The words that matter most."""

    text: str


@dataclass(frozen=True)
class Code:
    """Something to type."""

    text: str


@dataclass(frozen=True)
class Bar:
    """Block characters in the colour of their sign."""

    text: str
    negative: bool = False

    @classmethod
    def of(cls, share: float, cells: int = 10, *, negative: bool = False) -> Bar:
        """A bar of ``share`` in [0, 1] of ``cells`` characters."""
        return cls(bar(share, cells), negative)


Inline = str | Strong | Code | Bar
#: One inline or several; an empty string is an empty cell.
Cell = Inline | tuple[Inline, ...]


@dataclass(frozen=True)
class Line:
    """A paragraph; ``aside`` stands at its right."""

    content: tuple[Inline, ...]
    aside: str = ""

    @classmethod
    def of(cls, *content: Inline, aside: str = "") -> Line:
        """A paragraph of these inlines."""
        return cls(content, aside)


@dataclass(frozen=True)
class Column:
    """A column's title and the side it is aligned to."""

    title: str = ""
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Table:
    """Rows whose first cell names them.

    Args:
        caption: says what the numbers are.
        columns: one for each cell of a row; titles show if any is not empty.
        rows: equally long tuples.
        rest: what is not shown, in words.
        newspaper: in text, put the rows into as many columns side by side as fit.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    rest: str = ""
    newspaper: bool = False

    @property
    def titled(self) -> bool:
        """Whether there is a row of titles."""
        return any(column.title for column in self.columns)


@dataclass(frozen=True)
class Fold:
    """Blocks behind a summary; open in text."""

    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Picture:
    """A picture inside the card.

    Args:
        said: what one learns from it, in words; in text it stands in the picture's place.
        png: base64 of the file.
        width: in CSS pixels.
    """

    said: str
    png: str
    width: int


Block = Line | Table | Fold | Picture
Document = Sequence[Block]


def facts(caption: str, rows: Iterable[tuple[str, Cell]]) -> Table:
    """A two-column table of a name and what is known of it."""
    return Table(caption, (Column(), Column()), tuple(rows))


def inlines(cell: Cell) -> tuple[Inline, ...]:
    """A cell's inlines."""
    return cell if isinstance(cell, tuple) else (cell,)
