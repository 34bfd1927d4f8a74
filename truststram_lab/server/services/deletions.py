"""Take a deployment or a model away: only what nothing leans on, and all of it at once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.schemas.references import Reference
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.tables import (
    endpoints,
    model_aliases,
    model_versions,
    models,
    revisions,
    runs,
)

from .references import find_model
from .status import ACTIVE

__all__ = ["delete_deployment", "delete_model"]


def delete_deployment(connection: Connection, endpoint: Row[Any], now: str) -> list[str]:
    """Remove an endpoint and its revisions, and tell; the ids of the revisions."""
    mine = revisions.c.endpoint_id == endpoint.id
    ids = list(connection.execute(select(revisions.c.id).where(mine)).scalars())
    connection.execute(delete(revisions).where(mine))
    connection.execute(delete(endpoints).where(endpoints.c.id == endpoint.id))
    outbox.append(
        connection,
        endpoint.organisation_id,
        outbox.ORGANISATION_STREAM,
        "deployment.deleted",
        {
            "deployment": endpoint.name,
            "environment": endpoint.environment,
            "model": endpoint.name,
        },
        now,
    )
    return ids


def delete_model(connection: Connection, organisation_id: str, ref: str, now: str) -> None:
    """Remove a model, its versions and aliases, and tell. Its name may be taken again.

    Runs that trained it keep their records, and files stay while something else has the same.

    Raises:
        ModelNotFoundError: there is no such model; has the nearest names.
        InvalidInputError: ``ref`` names a version.
        ConflictError: it is deployed, or a run trains it now; says which.
    """
    asked = Reference.parse(ref)
    if not asked.follows:
        raise InvalidInputError(
            f"{ref!r} names one version, and versions stay as long as their model; delete "
            f"{asked.name!r} as a whole.",
            field="ref",
        )
    model = find_model(connection, organisation_id, asked.name)
    served = connection.execute(
        select(endpoints.c.name, endpoints.c.environment)
        .join(revisions, revisions.c.endpoint_id == endpoints.c.id)
        .where(revisions.c.model_id == model.id)
        .order_by(endpoints.c.environment)
    ).first()
    if served is not None:
        raise ConflictError(
            f"{model.name!r} is deployed as {served.name!r} in {served.environment}; delete that "
            f"deployment first: %ts_deployments {served.name} delete."
        )
    trained = connection.execute(
        select(runs.c.name).where(
            runs.c.organisation_id == organisation_id,
            runs.c.model == model.name,
            runs.c.status.in_(ACTIVE),
        )
    ).first()
    if trained is not None:
        raise ConflictError(
            f"Run {trained.name} trains {model.name!r} now; stop it first: %ts_runs "
            f"{trained.name} stop."
        )
    versions = connection.execute(
        select(func.count()).where(model_versions.c.model_id == model.id)
    ).scalar_one()
    for table in (model_aliases, model_versions):
        connection.execute(delete(table).where(table.c.model_id == model.id))
    connection.execute(delete(models).where(models.c.id == model.id))
    outbox.append(
        connection,
        organisation_id,
        outbox.ORGANISATION_STREAM,
        "model.deleted",
        {"model": model.name, "model_id": model.id, "versions": versions},
        now,
    )
