"""What the sites say of their tables before the first round, and whether these fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from truststram_lab.exceptions import NotFoundError, nearest
from truststram_lab.schemas.participation import Preflight, PreflightSite, SiteDescription
from truststram_lab.schemas.tables import Column, Signature
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import timestamp
from truststram_lab.server.stores.tables import federations, participants, site_descriptions

from .accounts import Principal
from .federation import find_federation
from .presence import Presence

__all__ = ["PreflightService", "compare"]


class PreflightService:
    """The descriptions of a federation's sites."""

    def __init__(self, engine: Engine, presence: Presence) -> None:
        self._engine = engine
        self._presence = presence

    def describe(self, principal: Principal, ref: str, described: SiteDescription) -> None:
        """Keep what the site says of its table; replaces what it said before.

        Raises:
            NotFoundError: the site takes part in no federation of that name or id.
        """
        now = timestamp()
        self._presence.seen(principal.id)
        with writing(self._engine) as connection:
            mine = connection.execute(
                select(federations)
                .join(participants, participants.c.federation_id == federations.c.id)
                .where(participants.c.principal_id == principal.id)
            ).one()
            if ref not in (mine.name, mine.id):
                raise NotFoundError(
                    f"This site takes part in federation {mine.name!r}, not in {ref!r}; describe "
                    "its table there.",
                    name=ref,
                    choices=[mine.name],
                )
            values = {"document": described.model_dump(mode="json"), "updated_at": now}
            known = connection.execute(
                update(site_descriptions)
                .where(site_descriptions.c.principal_id == principal.id)
                .values(**values)
            ).rowcount
            if not known:
                connection.execute(
                    insert(site_descriptions).values(principal_id=principal.id, **values)
                )
            outbox.append(
                connection,
                principal.organisation_id,
                outbox.ORGANISATION_STREAM,
                "federation.described",
                {"federation": mine.name, "federation_id": mine.id},
                now,
            )

    def get(self, organisation_id: str, ref: str) -> Preflight:
        """Whether the tables fit, site by site in the order of invitation."""
        with reading(self._engine) as connection:
            federation = find_federation(connection, organisation_id, ref)
            rows = _sites(connection, federation)
        there = self._presence.present([row.principal_id for row in rows])
        described = [
            (row.name, SiteDescription.model_validate(row.document))
            for row in rows
            if row.document is not None
        ]
        problems, signature = compare(described)
        sites = []
        for row in rows:
            status = "invited" if row.document is None else "described"
            if row.document is not None and row.principal_id in there:
                status = "present"
            values = {"name": row.name, "status": status, "problems": problems.get(row.name, [])}
            sites.append(PreflightSite.model_validate(values))
        ready = bool(sites) and len(described) == len(sites) and not any(problems.values())
        return Preflight(ready=ready, sites=sites, signature=signature)


def compare(
    described: Sequence[tuple[str, SiteDescription]],
) -> tuple[dict[str, list[str]], Signature | None]:
    """What keeps the tables apart, and what they agree on.

    The first site's columns set the order. Kinds, units, the target and the columns' names must
    agree. Categories, classes and missing values may differ: the model gets their union.

    Returns:
        Sentences by site, each naming the column and both sides; and the signature, None while
        there is a problem or nobody has said anything.
    """
    if not described:
        return {}, None
    first_name, first = described[0]
    problems: dict[str, list[str]] = {name: _twice(name, table) for name, table in described}
    for name, table in described[1:]:
        problems[name] += _differences(first_name, first, name, table)
    classes = sorted({label for _, table in described for label in table.classes})
    if len(classes) < 2:
        problems[first_name].append(
            f"All sites together have the one class {classes[0]!r} of {first.target!r}; two are "
            "needed."
        )
    if any(problems.values()):
        return problems, None
    columns = [_union(column, [table for _, table in described]) for column in first.columns]
    positive = _positive(classes)
    return problems, Signature(
        columns=columns, target=first.target, classes=classes, positive_class=positive
    )


def _positive(classes: list[str]) -> str | None:
    """Of two classes the later in the alphabet, such as 1 and yes; a plan may choose the other."""
    return classes[-1] if len(classes) == 2 else None


def _twice(name: str, table: SiteDescription) -> list[str]:
    seen: set[str] = set()
    found = []
    for column in table.columns:
        if column.name in seen:
            found.append(f"Column {column.name!r} of {name!r} comes twice; name it once.")
        seen.add(column.name)
    if table.target in seen:
        found.append(
            f"The target {table.target!r} of {name!r} is among its columns, too; leave it out."
        )
    return found


def _differences(
    first_name: str, first: SiteDescription, name: str, table: SiteDescription
) -> list[str]:
    found = []
    if table.target != first.target:
        found.append(
            f"The target is {first.target!r} at {first_name!r} and {table.target!r} at {name!r}."
        )
    mine = {column.name: column for column in table.columns}
    theirs = {column.name: column for column in first.columns}
    for column in first.columns:
        if column.name not in mine:
            close = nearest(column.name, [one for one in mine if one not in theirs])
            hint = f"; did it mean {close[0]!r}?" if close else "."
            found.append(f"Column {column.name!r} of {first_name!r} is missing at {name!r}{hint}")
    for column in table.columns:
        other = theirs.get(column.name)
        if other is None:
            close = nearest(column.name, [one for one in theirs if one not in mine])
            if not close:
                found.append(f"Column {column.name!r} of {name!r} is missing at {first_name!r}.")
            continue
        for what in ("kind", "unit"):
            here, there = getattr(column, what), getattr(other, what)
            if here != there:
                found.append(
                    f"Column {column.name!r} has {what} {there or 'none'!s} at {first_name!r} and "
                    f"{here or 'none'!s} at {name!r}."
                )
    return found


def _union(column: Column, tables: Sequence[SiteDescription]) -> Column:
    same = [one for table in tables for one in table.columns if one.name == column.name]
    categories = sorted({value for one in same for value in one.categories})
    nullable = any(one.nullable for one in same)
    return column.model_copy(update={"categories": categories, "nullable": nullable})


def _sites(connection: Connection, federation: Row[Any]) -> list[Row[Any]]:
    query = (
        select(participants.c.name, participants.c.principal_id, site_descriptions.c.document)
        .outerjoin(
            site_descriptions, site_descriptions.c.principal_id == participants.c.principal_id
        )
        .where(participants.c.federation_id == federation.id)
        .order_by(participants.c.created_at, participants.c.principal_id)
    )
    return list(connection.execute(query))
