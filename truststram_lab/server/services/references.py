"""From what was asked for to a model and a version: the one place that reads a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from truststram_lab.exceptions import InvalidInputError, ModelNotFoundError, nearest
from truststram_lab.schemas.references import BUILT_IN, Reference
from truststram_lab.server.stores.tables import (
    endpoints,
    model_aliases,
    model_versions,
    models,
    revisions,
)

__all__ = [
    "deployed_versions",
    "find_model",
    "find_version",
    "latest_version",
    "no_alias",
    "of_model",
]

#: aliases that an error lists
_LISTED = 12


def of_model(name: str, which: str) -> Reference:
    """The reference that ``which`` (``3``, ``1.0.0``, ``latest``, ``@champion``) is in a model."""
    alias = which.removeprefix("@")
    if which.startswith("@") and alias not in BUILT_IN:
        return Reference(name, alias=alias)
    return Reference(name, version=alias)


def find_model(connection: Connection, organisation_id: str, name: str) -> Row[Any]:
    """The row of the model of that name or id.

    Raises:
        ModelNotFoundError: with the nearest names.
        InvalidInputError: a version is named where the model alone is meant.
    """
    query = select(models).where(
        models.c.organisation_id == organisation_id,
        or_(models.c.name == name, models.c.id == name),
    )
    row = connection.execute(query).one_or_none()
    if row is not None:
        return row
    asked = Reference.parse(name)
    if asked.is_exact:
        raise InvalidInputError(
            f"{name[:120]!r} names a version where a model is meant; write {asked.name!r}.",
            field="model",
            choices=[asked.name],
        )
    names = connection.execute(
        select(models.c.name).where(models.c.organisation_id == organisation_id)
    ).scalars()
    close = nearest(name, list(names))
    hint = f"did you mean {close[0]!r}?" if close else "GET /api/v1/models lists what there is."
    raise ModelNotFoundError(f"There is no model {name!r}; {hint}", model_id=name, choices=close)


def find_version(
    connection: Connection, model: Row[Any], asked: Reference, environment: str
) -> Row[Any]:
    """The row of the version of ``model`` that ``asked`` means now; a name alone, the newest.

    Args:
        environment: in which ``deployed`` is looked up.

    Raises:
        ModelNotFoundError: there is no such version or alias; says which there are.
    """
    which, latest = asked.version or "latest", latest_version(connection, model.id)
    condition: ColumnElement[bool]
    if asked.alias is not None:
        sequence = _aliased(connection, model, asked.alias)
        if sequence is None:
            raise no_alias(connection, model, asked.alias)
        condition = model_versions.c.sequence == sequence
    elif which == "latest":
        condition = model_versions.c.sequence == latest
    elif which == "deployed":
        served = deployed_versions(connection, environment, [model.id]).get(model.id)
        condition = model_versions.c.sequence == served
    elif which.isascii() and which.isdigit():
        # more digits than a version can have would be more than the column can hold
        condition = model_versions.c.sequence == (int(which) if len(which) < 10 else 0)
    else:
        condition = model_versions.c.label == which
    query = select(model_versions).where(model_versions.c.model_id == model.id, condition)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _no_version(connection, model, which, latest)
    return row


def latest_version(connection: Connection, model_id: str) -> int | None:
    """The number of the model's newest version."""
    query = select(func.max(model_versions.c.sequence)).where(model_versions.c.model_id == model_id)
    found: int | None = connection.execute(query).scalar_one()
    return found


def deployed_versions(
    connection: Connection, environment: str, model_ids: Sequence[str]
) -> dict[str, int]:
    """Model id -> the version that its endpoint's newest working revision serves."""
    working = revisions.c.status.in_(("ready", "starting"))
    newest = (
        select(revisions.c.endpoint_id, func.max(revisions.c.sequence).label("sequence"))
        .where(working)
        .group_by(revisions.c.endpoint_id)
        .subquery()
    )
    query = (
        select(revisions.c.model_id, revisions.c.version_sequence)
        .join(
            newest,
            and_(
                revisions.c.endpoint_id == newest.c.endpoint_id,
                revisions.c.sequence == newest.c.sequence,
            ),
        )
        .join(endpoints, endpoints.c.id == revisions.c.endpoint_id)
        .where(
            revisions.c.model_id.in_(list(model_ids)),
            endpoints.c.environment == environment,
        )
        .order_by(revisions.c.created_at)
    )
    return {row.model_id: row.version_sequence for row in connection.execute(query)}


def no_alias(connection: Connection, model: Row[Any], alias: str) -> ModelNotFoundError:
    """The error for an alias that the model does not have: the nearest, and all it has."""
    known = _aliases(connection, model)
    ref, shown = f"{model.name}@{alias}", repr(alias[:120])
    if not known:
        return ModelNotFoundError(
            f"Model {model.name!r} has no alias {shown}, nor any other; PUT "
            f"/api/v1/models/{model.name}/aliases/<alias> sets one.",
            model_id=ref,
            choices=[],
        )
    listed = ", ".join(known[:_LISTED]) + (
        f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    )
    close = nearest(alias, known)
    hint = f"did you mean {close[0]!r}, out of {listed}?" if close else f"it has {listed}."
    return ModelNotFoundError(
        f"Model {model.name!r} has no alias {shown}; {hint}",
        model_id=ref,
        choices=[f"{model.name}@{name}" for name in close or known[:_LISTED]],
    )


def _aliased(connection: Connection, model: Row[Any], alias: str) -> int | None:
    return connection.execute(
        select(model_aliases.c.version_sequence).where(
            model_aliases.c.model_id == model.id, model_aliases.c.alias == alias
        )
    ).scalar_one_or_none()


def _aliases(connection: Connection, model: Row[Any]) -> list[str]:
    query = select(model_aliases.c.alias).where(model_aliases.c.model_id == model.id)
    return list(connection.execute(query.order_by(model_aliases.c.alias)).scalars())


def _no_version(
    connection: Connection, model: Row[Any], which: str, latest: int | None
) -> ModelNotFoundError:
    name, choices = model.name, [str(latest)] if latest is not None else []
    if which == "deployed":
        fact = f"Model {name!r} is not deployed; POST /api/v1/deployments deploys a version."
    elif latest is None:
        fact = f"Model {name!r} has no version yet; a finished run or an upload registers one."
    elif _aliased(connection, model, which) is not None:
        choices = [f"{name}@{which}"]
        fact = f"Model {name!r} has no version {which!r}; the alias is {choices[0]!r}."
    else:
        fact = f"Model {name!r} has no version {which[:120]}; the latest is {latest}."
    return ModelNotFoundError(fact, model_id=f"{name}:{which}", choices=choices)
