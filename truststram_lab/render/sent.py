"""Every byte that left in a run: by site and round, then field by field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..schemas.departures import Departure, SentArray
from ..schemas.federation import Run
from .card import Card, make_card
from .document import Block, Cell, Code, Column, Fold, Line, Strong, Table
from .numbers import clip, count, plural, size

__all__ = ["sent_card"]

_ROWS_SHOWN = 60
_FIELDS_SHOWN = 40
_TEXTS_SHOWN = 12


def sent_card(run: Run, departures: Sequence[Departure]) -> Card:
    """What left this computer for ``run``; bodies in full, HTTP's own headers as a remainder."""
    if not departures:
        document: list[Block] = [
            Line.of(
                f"Nothing of run {clip(run.name)} left this computer: it was sent from another "
                "one, or before such records were kept."
            ),
            Line.of("The run itself: ", Code(f"%ts_runs {clip(run.name)}")),
        ]
        return make_card("sent", document, _data(run, departures))
    bodies = sum(each.body_bytes for each in departures)
    document = [
        Line.of(
            Strong(f"Run {clip(run.name)}"),
            f": {_bodies(len(departures))} left this computer, {size(bodies)} "
            "in all. No row is among them.",
        ),
        _by_site(run, departures),
        *_fields(departures),
        *_by_round(departures),
        *_texts(departures),
        Line.of("All of it as a table: ", Code(f"%ts_runs {clip(run.name)} sent -o sent"),
                " and ", Code("sent.to_frame()")),
    ]  # fmt: skip
    return make_card("sent", document, _data(run, departures))


def _data(run: Run, departures: Sequence[Departure]) -> dict[str, object]:
    return {
        "run": run.name,
        "bodies": [
            {
                "site": each.site,
                "round": each.round,
                "kind": each.kind,
                "body_bytes": each.body_bytes,
                "before_bytes": each.before_bytes,
                "array_bytes": each.array_bytes,
            }
            for each in departures
        ],
    }


def _by_site(run: Run, departures: Sequence[Departure]) -> Table:
    names = [None, *dict.fromkeys(each.site for each in departures if each.site is not None)]
    sockets = {site.name: site.sent_bytes for site in run.report.sites} if run.report else {}
    columns = (
        Column("Sent by"),
        Column("Bodies", "right"),
        Column("Arrays, plain", "right"),
        Column("As sent", "right"),
        Column("Names, texts", "right"),
        Column("With HTTP", "right"),
    )
    rows: list[tuple[Cell, ...]] = []
    for name in names[:_ROWS_SHOWN]:
        mine = [each for each in departures if each.site == name]
        arrays = sum(each.array_bytes for each in mine)
        rows.append(
            (
                "owner" if name is None else clip(name, 40),
                count(len(mine)),
                size(sum(each.before_bytes for each in mine)),
                size(arrays),
                size(sum(each.body_bytes for each in mine) - arrays),
                "" if name is None or not sockets.get(name) else size(sockets[name]),
            )
        )
    rest = len(names) - len(rows)
    return Table(
        "What left, by sender",
        columns,
        tuple(rows),
        f"and {plural(rest, 'more site')}" if rest > 0 else "",
    )


def _fields(departures: Sequence[Departure]) -> list[Block]:
    """Each array of the updates, all sites and rounds together."""
    found: dict[tuple[str, str], list[SentArray]] = {}
    for each in departures:
        for array in each.arrays:
            found.setdefault((each.kind, array.name), []).append(array)
    rows = tuple(
        (
            clip(name, 40),
            kind,
            " x ".join(str(length) for length in arrays[0].shape) or "1",
            _forms(arrays),
            count(len(arrays)),
            size(sum(array.bytes_before for array in arrays)),
            size(sum(array.bytes_after for array in arrays)),
        )
        for (kind, name), arrays in list(found.items())[:_FIELDS_SHOWN]
    )
    columns = (
        Column("Field"),
        Column("In"),
        Column("Shape"),
        Column("Form"),
        Column("Times", "right"),
        Column("Plain", "right"),
        Column("As sent", "right"),
    )
    rest = len(found) - len(rows)
    more = f"and {plural(rest, 'more field')}" if rest > 0 else ""
    return [Table("Field by field", columns, rows, more)] if rows else []


def _bodies(number: int, more: str = "") -> str:
    return f"{count(number)} {more}{'body' if number == 1 else 'bodies'}"


def _forms(arrays: Iterable[SentArray]) -> str:
    return ", ".join(dict.fromkeys(array.form for array in arrays))


def _by_round(departures: Sequence[Departure]) -> list[Block]:
    sent = [each for each in departures if each.round is not None]
    rows = tuple(
        (
            clip(each.site or "owner", 40),
            "statistics" if each.kind == "statistics" else f"round {each.round}",
            size(each.before_bytes),
            size(each.array_bytes),
            size(each.body_bytes),
            each.sha256[:12] if each.sha256 else "",
        )
        for each in sent[:_ROWS_SHOWN]
    )
    columns = (
        Column("Site"),
        Column("Round"),
        Column("Plain", "right"),
        Column("As sent", "right"),
        Column("Whole body", "right"),
        Column("sha256"),
    )
    rest = len(sent) - len(rows)
    more = f"and {_bodies(rest, 'more ')}" if rest > 0 else ""
    table = Table("Each update", columns, rows, more)
    return [Fold("Update by update", (table,))] if rows else []


def _texts(departures: Sequence[Departure]) -> list[Block]:
    """What went beside the arrays: the first body of each kind, text by text."""
    first: dict[str, Departure] = {}
    for each in departures:
        first.setdefault(each.kind, each)
    rows: list[tuple[Cell, ...]] = []
    for kind, each in first.items():
        shown = list(each.texts.items())
        rows += [(kind, clip(name, 40), clip(text, 60)) for name, text in shown[:_TEXTS_SHOWN]]
        if len(shown) > _TEXTS_SHOWN:
            rows.append((kind, f"and {count(len(shown) - _TEXTS_SHOWN)} more", ""))
    columns = (Column("In"), Column("Name"), Column("Value"))
    table = Table("Besides arrays, in the first of each kind", columns, tuple(rows))
    return [Fold("Texts and numbers beside the arrays", (table,))] if rows else []
