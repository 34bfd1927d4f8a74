"""Who has what: the rows of every class at every simulated site."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from .card import Card, make_card
from .curves import shares_picture
from .document import Block, Cell, Code, Column, Line, Strong, Table
from .numbers import clip, count, percent, plural, share, short_list

__all__ = ["dealt_card"]

_SITES_SHOWN = 30
_CLASSES_SHOWN = 12


def dealt_card(
    sites: Sequence[str],
    classes: Sequence[str],
    counts: np.ndarray,
    *,
    how: str,
    held_out: int,
    moved: int = 0,
    command: str = "",
) -> Card:
    """Rows by site and class, as a picture with a line a site and as numbers.

    Args:
        counts: whole numbers, (sites, classes).
        how: the split, in words.
        held_out: rows that were taken away before.
        moved: rows that were moved to sites which had too few.
        command: what trains on it.
    """
    finding = _finding(sites, counts)
    total = int(counts.sum())
    document: list[Block] = [
        Line.of(
            Strong(f"{plural(total, 'row')} dealt to {plural(len(sites), 'site')}"),
            f", {how}; {plural(held_out, 'row')} held out before. Nothing has trained.",
        ),
        Line.of(finding),
        shares_picture(f"Share of each class at each site. {finding}", counts, classes),
        _spread(counts),
    ]
    if len(sites) <= _SITES_SHOWN and len(classes) <= _CLASSES_SHOWN:
        document.append(_table(sites, classes, counts))
    else:
        document.append(_totals(classes, counts))
    if moved:
        document.append(
            Line.of(f"{plural(moved, 'row')} were moved to sites that would have had too few.")
        )
    if command:
        document.append(Line.of("Train on it: ", Code(command)))
    data = {
        "sites": len(sites),
        "classes": list(classes)[:100],
        "rows": total,
        "held_out": held_out,
        "split": how,
        "counts": counts[:100, :100].tolist(),
    }
    return make_card("dealt", document, data)


def _finding(sites: Sequence[str], counts: np.ndarray) -> str:
    sizes = counts.sum(axis=1)
    single = (counts > 0).sum(axis=1) == 1
    lonely = [clip(name, 30) for name, one in zip(sites, single.tolist(), strict=True) if one]
    smallest, largest = int(sizes.min()), int(sizes.max())
    said = f"Sites have {count(smallest)} to {count(largest)} rows"
    if smallest == largest:
        said = f"Every site has {plural(smallest, 'row')}"
    tops = counts.max(axis=1) / np.maximum(sizes, 1)
    said += f"; the largest class makes up {percent(float(np.median(tops)))} of the median site's"
    whole = counts.sum(axis=0).max() / max(counts.sum(), 1)
    said += f" rows, and {percent(float(whole))} of all"
    if lonely:
        verb = "has" if len(lonely) == 1 else "have"
        said += f". {short_list(lonely, 3)} {verb} one class only"
    return f"{said}."


def _spread(counts: np.ndarray) -> Table:
    sizes = counts.sum(axis=1)
    shares = counts / np.maximum(sizes, 1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(shares > 0, shares * np.log(shares), 0.0).sum(axis=1)
    lines: list[tuple[str, list[float], Callable[[float], str]]] = [
        ("rows", sizes.tolist(), lambda rows: count(round(rows))),
        ("share of its largest class", shares.max(axis=1).tolist(), share),
        ("effective number of classes", np.exp(entropy).tolist(), lambda many: f"{many:.1f}"),
    ]
    columns = (
        Column("Of a site"),
        Column("Least", "right"),
        Column("Median", "right"),
        Column("Most", "right"),
    )
    rows = tuple(
        (name, form(min(values)), form(statistics.median(values)), form(max(values)))
        for name, values, form in lines
    )
    return Table("How the sites differ", columns, rows)


def _table(sites: Sequence[str], classes: Sequence[str], counts: np.ndarray) -> Table:
    columns = [Column("Site"), *(Column(clip(name, 20), "right") for name in classes)]
    columns.append(Column("All", "right"))
    rows: list[tuple[Cell, ...]] = [
        (clip(name, 40), *(count(int(n)) for n in row), count(int(row.sum())))
        for name, row in zip(sites, counts, strict=True)
    ]
    rows.append(
        ("all sites", *(count(int(n)) for n in counts.sum(axis=0)), count(int(counts.sum())))
    )
    return Table("Rows by class at each site", tuple(columns), tuple(rows))


def _totals(classes: Sequence[str], counts: np.ndarray) -> Table:
    columns = (Column("Class"), Column("Rows", "right"), Column("Sites that have it", "right"))
    rows = tuple(
        (clip(name, 40), count(int(counts[:, place].sum())),
         count(int((counts[:, place] > 0).sum())))
        for place, name in enumerate(classes[:_SITES_SHOWN])
    )  # fmt: skip
    rest = len(classes) - len(rows)
    more = f"and {count(rest)} more; to_frame() has all" if rest > 0 else ""
    return Table("Rows by class; to_frame() has each site", columns, rows, more)
