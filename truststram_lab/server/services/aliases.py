"""Aliases: names that move from version to version of their own model.

A row says which version an alias names now; the database itself refuses one that is not a
version of that model, and the removal of a version that an alias names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.schemas.references import BUILT_IN
from truststram_lab.schemas.registry import NAME_PATTERN, Alias
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.tables import model_aliases, model_versions, principals

from .accounts import Principal
from .references import no_alias

__all__ = ["aliases_of", "check_label", "delete_alias", "move_alias"]

#: aliases of one model; every reading of a model carries them
_MOST = 100

_NUMBERS = re.compile(r"[0-9.]+")


def aliases_of(connection: Connection, model_ids: Sequence[str]) -> dict[str, list[Alias]]:
    """Model id -> its aliases by name; a model without any is missing."""
    query = (
        select(model_aliases, principals.c.name.label("principal"))
        .join(principals, principals.c.id == model_aliases.c.moved_by)
        .where(model_aliases.c.model_id.in_(list(model_ids)))
        .order_by(model_aliases.c.alias)
    )
    found: dict[str, list[Alias]] = {}
    for row in connection.execute(query):
        alias = Alias(
            alias=row.alias,
            version=row.version_sequence,
            moved_at=row.moved_at,
            moved_by=row.principal,
        )
        found.setdefault(row.model_id, []).append(alias)
    return found


def move_alias(
    connection: Connection,
    principal: Principal,
    model: Row[Any],
    alias: str,
    sequence: int,
    now: str,
) -> None:
    """Let ``alias`` name version ``sequence``, which the model has, and tell.

    Where it names that version already nothing changes. For use inside a transaction that
    has locked the model.

    Raises:
        InvalidInputError: it is no alias; suggests one.
        ConflictError: it is the label of a version, or the model has too many aliases.
    """
    here = _here(model, alias)
    former = connection.execute(select(model_aliases).where(here)).one_or_none()
    if former is not None and former.version_sequence == sequence:
        return
    values = {"version_sequence": sequence, "moved_at": now, "moved_by": principal.id}
    if former is not None:
        connection.execute(update(model_aliases).where(here).values(values))
    else:
        _check_new(connection, model, alias)
        values |= {
            "organisation_id": model.organisation_id,
            "model_id": model.id,
            "alias": alias,
        }
        connection.execute(insert(model_aliases).values(values))
    was = former.version_sequence if former is not None else None
    told = {"version": sequence, "former": was, "by": principal.name}
    _tell(connection, model, "model.alias_moved", {"alias": alias, **told}, now)


def delete_alias(
    connection: Connection, principal: Principal, model: Row[Any], alias: str, now: str
) -> None:
    """Take ``alias`` away, and tell; the version it named stays.

    Raises:
        ModelNotFoundError: the model has no such alias; says which it has.
    """
    former = connection.execute(
        delete(model_aliases).where(_here(model, alias)).returning(model_aliases.c.version_sequence)
    ).scalar_one_or_none()
    if former is None:
        raise no_alias(connection, model, alias)
    told = {"alias": alias, "version": former, "by": principal.name}
    _tell(connection, model, "model.alias_deleted", told, now)


def check_label(connection: Connection, model: Row[Any], label: str) -> None:
    """Refuse a version's label that a reference would read as something else.

    Raises:
        InvalidInputError: it is a number, or a built-in word.
        ConflictError: it is an alias of the model.
    """
    if label in BUILT_IN or label.isdigit():
        meant = "is built in" if label in BUILT_IN else "would read as the version's number"
        raise InvalidInputError(
            f"The label {label!r} {meant}; take one such as '1.0.0', or leave it out.",
            field="label",
        )
    if connection.execute(select(model_aliases).where(_here(model, label))).one_or_none():
        raise ConflictError(
            f"{label!r} is an alias of model {model.name!r}; choose another label or leave it out."
        )


def _check_new(connection: Connection, model: Row[Any], alias: str) -> None:
    if alias in BUILT_IN:
        meaning = "its newest version" if alias == "latest" else "what its endpoint serves"
        raise InvalidInputError(
            f"{alias!r} is built in: {model.name}@{alias} is always {meaning}; choose another "
            "alias, such as 'champion'.",
            field="alias",
        )
    if _NUMBERS.fullmatch(alias) or not re.fullmatch(NAME_PATTERN, alias):
        near = _nearest_valid(alias)
        what = "would read as a version" if _NUMBERS.fullmatch(alias) else "is not an alias"
        raise InvalidInputError(
            f"{alias[:120]!r} {what}; write it with small letters, digits, dots, dashes and "
            f"underscores, such as {near!r}.",
            field="alias",
            choices=[near],
        )
    labelled = connection.execute(
        select(model_versions.c.sequence).where(
            model_versions.c.model_id == model.id, model_versions.c.label == alias
        )
    ).scalar_one_or_none()
    if labelled is not None:
        raise ConflictError(
            f"{alias!r} is the label of version {labelled} of model {model.name!r}, which is "
            f"{model.name}:{alias}; choose another alias."
        )
    of_model = select(func.count()).where(model_aliases.c.model_id == model.id)
    if connection.execute(of_model).scalar_one() >= _MOST:
        raise ConflictError(
            f"Model {model.name!r} has {_MOST} aliases, which is the most; delete one with DELETE "
            f"/api/v1/models/{model.name}/aliases/<alias> first."
        )


def _nearest_valid(alias: str) -> str:
    near = re.sub(r"[^a-z0-9._-]+", "-", alias.casefold()).strip("-._")[:99]
    return f"v{near}" if near and _NUMBERS.fullmatch(near) else near or "champion"


def _here(model: Row[Any], alias: str) -> Any:
    return (model_aliases.c.model_id == model.id) & (model_aliases.c.alias == alias)


def _tell(
    connection: Connection, model: Row[Any], kind: str, data: Mapping[str, object], now: str
) -> None:
    named = {"model": model.name, "model_id": model.id, **data}
    stream = outbox.ORGANISATION_STREAM
    outbox.append(connection, model.organisation_id, stream, kind, named, now)
