"""A document as monospaced text, at most 88 columns wide: what a terminal shows."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from .document import Block, Cell, Code, Document, Fold, Line, Picture, Table, inlines
from .numbers import clean

__all__ = ["FOLD_MARK", "WIDTH", "to_text", "width_of"]

#: Begins the line that names a card's details, which a page folds away.
FOLD_MARK = "▸ "

#: Columns a card may take.
WIDTH = 88
#: Where asides end, so that they stand in one line with the tables.
_ASIDE_END = 72
_GAP = 2
_INDENT = 2
_LEAST = 4
#: Where a line must not break: inside what is to be typed.
_TIE = "\u00a0"


def to_text(document: Document) -> str:
    """The document as lines; no line ends in a space."""
    lines = _blocks(document, WIDTH)
    return "\n".join(line.replace(_TIE, " ").rstrip() for line in lines)


def width_of(text: str) -> int:
    """Columns that ``text`` takes in a terminal: wide characters two, combining ones none."""
    return len(text) if text.isascii() else _width_of(text)


@lru_cache(maxsize=1024)
def _width_of(text: str) -> int:
    return sum(_width(character) for character in text)


def _words(cell: Cell) -> str:
    return clean(
        "".join(
            part.text.replace(" ", _TIE)
            if isinstance(part, Code)
            else part
            if isinstance(part, str)
            else part.text
            for part in inlines(cell)
        )
    )


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _blocks(document: Document, width: int) -> list[str]:
    lines: list[str] = []
    before: Block | None = None
    for block in document:
        # Paragraphs that follow each other belong together; tables and folds stand apart.
        if before is not None and not (isinstance(before, Line) and isinstance(block, Line)):
            lines.append("")
        lines += _block(block, width)
        before = block
    return lines


# Of a live card most blocks read as they did a moment ago.
@lru_cache(maxsize=256)
def _block(block: Block, width: int) -> tuple[str, ...]:
    if isinstance(block, Line):
        return tuple(_line(block, width))
    if isinstance(block, Table):
        return tuple(_table(block, width))
    if isinstance(block, Picture):
        return tuple(_wrap(clean(block.said), width))
    return tuple(_fold(block, width))


def _line(line: Line, width: int) -> list[str]:
    text = _words(line.content)
    aside = clean(line.aside)
    if not aside:
        return _wrap(text, width)
    end = max(_ASIDE_END, width_of(text) + _GAP + width_of(aside))
    if end <= width:
        return [text + " " * (end - width_of(text) - width_of(aside)) + aside]
    return _wrap(text, width) + _wrap(aside, width)


def _fold(fold: Fold, width: int) -> list[str]:
    inside = _blocks(fold.blocks, width - _INDENT)
    title = FOLD_MARK + clean(fold.summary)
    return [*_wrap(title, width), *(" " * _INDENT + line for line in inside)]


def _table(table: Table, width: int) -> list[str]:
    rows = [[_words(cell) for cell in row] for row in table.rows]
    titles = [clean(column.title) for column in table.columns]
    every = [titles, *rows] if table.titled else rows
    room = width - _INDENT
    aligns = [column.align for column in table.columns]
    widths = _fitted(every, aligns, room - _GAP * (len(titles) - 1))
    head = _row(titles, widths, aligns) if table.titled else []
    body = [line for row in rows for line in _row(row, widths, aligns)]
    if table.newspaper:
        head, body = _newspaper(head, body, sum(widths) + _GAP * (len(widths) - 1), room)
    return [
        *_wrap(clean(table.caption), width),
        *(" " * _INDENT + line for line in [*head, *body]),
        *(" " * _INDENT + line for line in _wrap(clean(table.rest), room)),
    ]


def _fitted(rows: list[list[str]], aligns: Sequence[str], room: int) -> list[int]:
    """Widths that fit into ``room``: text gives way before numbers, and words break last."""
    columns = range(len(aligns))
    widths = [max((width_of(row[i]) for row in rows), default=0) for i in columns]
    if sum(widths) <= room:
        return widths
    whole = [max((_longest_word(row[i]) for row in rows), default=0) for i in columns]
    for kind, floors in (("left", whole), ("left", None), ("right", None)):
        least = [_LEAST] * len(aligns) if floors is None else floors
        while sum(widths) > room:
            can = [i for i in columns if aligns[i] == kind and widths[i] > least[i]]
            if not can:
                break
            widths[max(can, key=lambda i: widths[i])] -= 1
    return widths


def _longest_word(text: str) -> int:
    return max(width_of(word) for word in text.split(" "))


def _row(cells: list[str], widths: list[int], aligns: Sequence[str]) -> list[str]:
    """One row, on as many lines as its longest cell needs; nothing is cut off."""
    wrapped = [_wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for index in range(max((len(cell) for cell in wrapped), default=0)):
        parts = []
        for cell, width, align in zip(wrapped, widths, aligns, strict=True):
            part = cell[index] if index < len(cell) else ""
            space = " " * (width - width_of(part))
            parts.append(space + part if align == "right" else part + space)
        lines.append((" " * _GAP).join(parts))
    return lines


def _newspaper(
    head: list[str], body: list[str], width: int, room: int
) -> tuple[list[str], list[str]]:
    gap = " " * (2 * _GAP)
    groups = max(1, (room + len(gap)) // (width + len(gap)))
    if groups == 1 or len(body) < 2 * groups:
        return head, body
    height = -(-len(body) // groups)
    stacks = [body[start : start + height] for start in range(0, len(body), height)]
    joined = [
        gap.join(stack[index] for stack in stacks if index < len(stack)) for index in range(height)
    ]
    return [gap.join([line] * len(stacks)) for line in head], joined


def _wrap(text: str, width: int) -> list[str]:
    """``text`` on lines of at most ``width`` columns, broken at spaces where there are any."""
    if width_of(text) <= width:
        return [text] if text else []
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width_of(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = _pieces(word, width)
        lines += full
    return [*lines, line] if line else lines


def _pieces(word: str, width: int) -> list[str]:
    pieces, piece, used = [], "", 0
    for character in word:
        columns = _width(character)
        if piece and used + columns > width:
            pieces.append(piece)
            piece, used = "", 0
        piece += character
        used += columns
    return [*pieces, piece]
