"""A document as static HTML that survives notebooks' sanitizers.

Only tags, attributes and style properties that JupyterLab keeps in an untrusted notebook
are used, and nothing depends on a style: code hosts strip them all.
"""

from __future__ import annotations

from functools import lru_cache
from html import escape

from .bars import NEGATIVE, POSITIVE
from .document import (
    Bar,
    Block,
    Cell,
    Code,
    Column,
    Document,
    Fold,
    Inline,
    Line,
    Picture,
    Strong,
    Table,
    inlines,
)
from .numbers import clean

__all__ = ["to_html"]

_ASIDE = "padding-left:24px"
_BAR = "font-family:monospace;white-space:pre"
_CAPTION = "text-align:left;padding:0 0 2px 0;font-weight:600"
_CELL = "padding:2px 16px 2px 0"
_FOLD = "margin:0 0 4px 0"
_FOLDED = "padding:6px 0 4px 14px"
_LINE = "margin:0 0 8px 0"
_REST = "margin:-4px 0 8px 0"
_TABLE = "margin:0 0 10px 0;border-collapse:collapse"


def to_html(document: Document) -> str:
    """The document as one ``div``; text colour and background are the page's own."""
    return f"<div>{''.join(_block(block) for block in document)}</div>"


# Of a live card most blocks read as they did a moment ago.
@lru_cache(maxsize=256)
def _block(block: Block) -> str:
    if isinstance(block, Line):
        return _line(block)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        return (
            f'<p style="{_LINE}"><img src="data:image/png;base64,{block.png}" '
            f'alt="{_words(block.said)}" width="{block.width}"></p>'
        )
    return _fold(block)


def _line(line: Line) -> str:
    aside = f' <span style="{_ASIDE}">{_words(line.aside)}</span>' if line.aside else ""
    return f'<p style="{_LINE}">{_content(line.content)}{aside}</p>'


def _fold(fold: Fold) -> str:
    inside = "".join(_block(block) for block in fold.blocks)
    return (
        f'<details style="{_FOLD}"><summary>{_words(fold.summary)}</summary>'
        f'<div style="{_FOLDED}">{inside}</div></details>'
    )


def _table(table: Table) -> str:
    head = ""
    if table.titled:
        titles = "".join(
            f'<th scope="col"{_attributes(column)}>{_words(column.title)}</th>'
            for column in table.columns
        )
        head = f"<thead><tr>{titles}</tr></thead>"
    body = "".join(f"<tr>{_row(table, row)}</tr>" for row in table.rows)
    rest = f'<p style="{_REST}">{_words(table.rest)}</p>' if table.rest else ""
    return (
        f'<table style="{_TABLE}"><caption align="left" style="{_CAPTION}">'
        f"{_words(table.caption)}</caption>{head}<tbody>{body}</tbody></table>{rest}"
    )


def _row(table: Table, row: tuple[Cell, ...]) -> str:
    cells = []
    for index, (column, cell) in enumerate(zip(table.columns, row, strict=True)):
        content = _content(inlines(cell))
        if column.align == "right":
            # A number and its unit stay together; shorter than a style in every cell.
            content = content.replace(" ", "\u00a0")
        if index == 0:
            # A row's name is a header to a screen reader and plain text to the eye.
            attributes = _attributes(column, ";font-weight:normal")
            cells.append(f'<th scope="row"{attributes}>{content}</th>')
        else:
            cells.append(f"<td{_attributes(column)}>{content}</td>")
    return "".join(cells)


def _attributes(column: Column, more: str = "") -> str:
    """Alignment for pages with a style of their own (notebooks align all cells to the right)
    and for those that strip styles (there only ``align`` is left)."""
    if column.align == "right":
        return f' align="right" style="{_CELL}{more}"'
    return f' align="left" style="{_CELL};text-align:left{more}"'


def _content(content: tuple[Inline, ...]) -> str:
    return "".join(_inline(part) for part in content)


def _inline(part: Inline) -> str:
    if isinstance(part, str):
        return _words(part)
    if isinstance(part, Strong):
        return f"<strong>{_words(part.text)}</strong>"
    if isinstance(part, Code):
        return f"<code>{_words(part.text)}</code>"
    return _bar(part)


def _bar(part: Bar) -> str:
    if not part.text:
        return ""
    colour = NEGATIVE if part.negative else POSITIVE
    return f'<span style="color:{colour};{_BAR}">{_words(part.text)}</span>'


def _words(text: str) -> str:
    return escape(clean(text), quote=True)
