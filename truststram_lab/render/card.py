"""What a front end gets: the same facts as HTML, as text and as data."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from .document import Block, Document, Fold, Line, Table
from .html import to_html
from .numbers import plural
from .text import to_text

__all__ = ["MAX_CARD_BYTES", "MAX_DATA_BYTES", "Card", "LiveCard", "make_card", "plain_data"]

#: A notebook with a hundred cards should stay a file one can mail.
MAX_CARD_BYTES = 48_000
MAX_DATA_BYTES = 10_000

#: How many entries of a list or mapping stay when the data are too large, tried in turn.
_CUTS = (100, 30, 10, 3, 1)

_TOO_LARGE: tuple[Block, ...] = (
    Line.of("Left out here, because it would make the notebook too large."),
)


@dataclass(frozen=True)
class Card:
    """A result to look at.

    Args:
        html: static, works in an untrusted notebook, on code hosts and without a kernel.
        text: monospaced, at most 88 columns.
        data: JSON with ``version``; ``omitted`` counts what did not fit, by its place.
        mime: the vendor type of ``data``.
    """

    html: str
    text: str
    data: dict[str, Any]
    mime: str

    def bundle(self) -> dict[str, object]:
        """The mimebundle: vendor JSON, HTML and text. Never a widget's view."""
        return {self.mime: self.data, "text/html": self.html, "text/plain": self.text}


@dataclass(frozen=True)
class LiveCard:
    """What stands in a card's place until its result is there: replaced in a moment, so it
    carries no data, and nothing is folded, which would close under the reader's hand."""

    html: str
    text: str

    @classmethod
    def of(cls, document: Document) -> LiveCard:
        """The live card of a document."""
        return cls(*_fitting(list(document), MAX_CARD_BYTES))

    def bundle(self) -> dict[str, object]:
        """The mimebundle: HTML and text."""
        return {"text/html": self.html, "text/plain": self.text}


def make_card(kind: str, document: Document, data: dict[str, Any]) -> Card:
    """The card of a document; ``data`` are JSON values without NaN."""
    fitting_data = _fitting_data({"version": 1, **data})
    html, text = _fitting(list(document), MAX_CARD_BYTES - _size(fitting_data))
    return Card(html, text, fitting_data, f"application/vnd.truststram.{kind}+json")


def plain_data(model: Any) -> Any:
    """A schema as JSON values; numbers that JSON cannot write are null."""
    return json.loads(model.model_dump_json())


def _fitting(blocks: list[Block], room: int) -> tuple[str, str]:
    """HTML and text that fit: without the largest folds' contents, then with fewer rows."""
    while True:
        html, text = to_html(blocks), to_text(blocks)
        if len(html.encode()) + len(text.encode()) <= room:
            return html, text
        smaller = [(len(to_html([block])), index) for index, block in enumerate(blocks)]
        folds = [entry for entry in smaller if _opens(blocks[entry[1]])]
        tables = [entry for entry in smaller if _rows(blocks[entry[1]]) > 1]
        if not folds and not tables:
            return html, text
        _, largest = max(folds or tables)
        blocks[largest] = _smaller(blocks[largest])


def _opens(block: Block) -> bool:
    return isinstance(block, Fold) and block.blocks != _TOO_LARGE


def _rows(block: Block) -> int:
    return len(block.rows) if isinstance(block, Table) else 0


def _smaller(block: Block) -> Block:
    if isinstance(block, Fold):
        return Fold(block.summary, _TOO_LARGE)
    if isinstance(block, Table):
        kept = len(block.rows) // 2
        cut = f"{plural(len(block.rows) - kept, 'row')} left out, too large for a notebook"
        rest = f"{cut}; {block.rest}" if block.rest else cut
        return replace(block, rows=block.rows[:kept], rest=rest)
    return block


def _fitting_data(data: dict[str, Any]) -> dict[str, Any]:
    if _size(data) <= MAX_DATA_BYTES:
        return data
    for most in _CUTS:
        omitted: dict[str, int] = {}
        cut = _cut(data, most, "", omitted)
        found: dict[str, Any] = {**cut, "omitted": omitted}
        if _size(found) <= MAX_DATA_BYTES:
            return found
    return {"version": data["version"], "omitted": {"": len(data) - 1}}


def _cut(value: Any, most: int, place: str, omitted: dict[str, int]) -> Any:
    if isinstance(value, list):
        _count_omitted(len(value) - most, place, omitted)
        return [_cut(entry, most, f"{place}[]", omitted) for entry in value[:most]]
    if isinstance(value, dict):
        # A schema has a handful of fields; a mapping by label may have thousands.
        kept = list(value.items())[: max(most, 20)]
        _count_omitted(len(value) - len(kept), place, omitted)
        return {
            key: _cut(entry, most, f"{place}.{key}".lstrip("."), omitted) for key, entry in kept
        }
    return value[:1000] if isinstance(value, str) else value


def _count_omitted(number: int, place: str, omitted: dict[str, int]) -> None:
    if number > 0:
        omitted[place] = omitted.get(place, 0) + number


def _size(data: Any) -> int:
    return len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
