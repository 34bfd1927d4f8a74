"""What a site is shown before it joins: all that would leave it."""

from __future__ import annotations

from ..schemas.sites import SitePreview
from .card import Card, make_card, plain_data
from .document import Block, Code, Column, Line, Strong, Table, facts
from .numbers import clip, count, plural, size

__all__ = ["preview_card"]

_SHOWN = 30


def preview_card(found: SitePreview) -> Card:
    """What would leave a site, before it does."""
    who = f"{clip(found.site)} in {clip(found.federation)}"
    document: list[Block] = [
        Line.of(Strong(f"Nothing was sent. What would leave {who}:")),
        facts("Once: the registration", [(k, clip(v, 120)) for k, v in found.registration.items()]),
        _described_table(found),
        _aggregates_line(found),
        _update_table(found),
        Line.of(
            "With every question for work: a random name of this computer, which tells two "
            "participants of one identity apart."
        ),
        facts("With it", [("numbers", clip(", ".join(found.metrics), 600))]),
    ]
    own = "" if found.personal is None else f"the personal model ({clip(found.personal, 120)}), "
    floor = " ".join(found.policy) if found.policy else "none; --min-noise and others set one."
    document += [Line.of(f"Privacy: {clip(one, 900)}") for one in found.costs]
    document += [Line.of(clip(one.text, 400)) for one in found.spent]
    document += [
        Line.of("This site's floor: ", floor),
        Line.of(
            f"What stays: the {plural(found.rows, 'row')} to train on and those held out, every "
            f"smallest and largest value, {own}and the training function."
        ),
        Line.of("Join: the same line without ", Code("--dry-run")),
    ]
    return make_card("preview", document, {"preview": plain_data(found)})


def _described_table(found: SitePreview) -> Table:
    columns = (Column("Column"), Column("Kind"), Column("Values that leave with it"))
    rows = [
        (
            clip(column.name, 40),
            column.kind + (", with gaps" if column.nullable else ""),
            clip(", ".join(column.categories), 400) if column.categories else "none",
        )
        for column in found.columns[:_SHOWN]
    ]
    rows.append((clip(found.target, 40), "target", clip(", ".join(found.classes), 400)))
    rest = len(found.columns) - min(len(found.columns), _SHOWN)
    more = f"and {plural(rest, 'more column')}" if rest > 0 else ""
    return Table("Once: the table's description", columns, tuple(rows), more)


def _aggregates_line(found: SitePreview) -> Line:
    if not found.statistics_bytes:
        return Line.of("Before the first round: no aggregates of columns; this site gives none.")
    numbers = sum(len(names) for names in found.statistics.values())
    return Line.of(
        f"Before the first round: {plural(numbers, 'aggregate')} of "
        f"{plural(len(found.statistics), 'column')} ({size(found.statistics_bytes)}): of each the "
        "rows with and without a value, and its mean and variance, or its rows by category."
    )


def _update_table(found: SitePreview) -> Table:
    columns = (Column("Array"), Column("Shape"), Column("Type"), Column("Bytes", "right"))
    rows = tuple(
        (
            clip(array.name, 40),
            " × ".join(count(side) for side in array.shape),
            array.dtype,
            count(array.size_bytes),
        )
        for array in found.update[:_SHOWN]
    )
    before = sum(array.size_bytes for array in found.update)
    caption = (
        f"Every round: the change of the model's weights, {size(before)}, on the wire "
        f"{size(found.update_bytes)}"
    )
    more = "for the network of a run whose owner chooses no other"
    return Table(caption, columns, rows, more)
