"""Endpoints and their revisions: which version a name's traffic goes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, case, func, insert, select, update

from truststram_lab.exceptions import ModelNotFoundError, NotFoundError, nearest
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.serving import Deployment
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.engine import reading
from truststram_lab.server.stores.ids import new_id
from truststram_lab.server.stores.tables import endpoints, model_versions, models, revisions

from .paging import page
from .registry import find_model

__all__ = ["Deployments", "record_deployment"]

_WORKING = ("ready", "starting")


class Deployments:
    """Reads the endpoints of an organisation.

    Args:
        environment: whose endpoint is meant when two environments have the name.
        failed: whether a version (by id) was found to be unusable since.
    """

    def __init__(self, engine: Engine, environment: str, failed: Callable[[str], bool]) -> None:
        self._engine = engine
        self._environment = environment
        self._failed = failed

    def page(
        self, organisation_id: str, *, limit: int, cursor: str | None, search: str | None
    ) -> Page[Deployment]:
        """The endpoints, newest first."""
        query = select(endpoints).where(endpoints.c.organisation_id == organisation_id)
        with reading(self._engine) as connection:
            rows, following = page(
                connection, query, endpoints, limit=limit, cursor=cursor, search=search
            )
            return Page[Deployment](items=self.views(connection, rows), next_cursor=following)

    def get(self, organisation_id: str, name: str) -> Deployment:
        """The endpoint of that name; NotFoundError has the nearest names."""
        mine = endpoints.c.organisation_id == organisation_id
        with reading(self._engine) as connection:
            query = select(endpoints).where(mine, endpoints.c.name == name)
            row = connection.execute(self._own_environment_first(query)).first()
            if row is not None:
                return self.views(connection, [row])[0]
            names = connection.execute(select(endpoints.c.name).where(mine)).scalars().all()
        close = nearest(name, names)
        hint = f"did you mean {close[0]!r}?" if close else "POST /api/v1/deployments makes one."
        raise NotFoundError(f"There is no deployment {name!r}; {hint}", name=name, choices=close)

    def serving(self, organisation_id: str, name: str) -> tuple[str, str]:
        """Name and version of the model that the endpoint ``name`` serves.

        A model's id stands for its name.

        Raises:
            ModelNotFoundError: no such model, or it is not deployed; says how to deploy it.
        """
        query = (
            select(models.c.name, revisions.c.version_sequence)
            .join(revisions, revisions.c.model_id == models.c.id)
            .join(endpoints, endpoints.c.id == revisions.c.endpoint_id)
            .where(
                endpoints.c.organisation_id == organisation_id,
                revisions.c.status.in_(_WORKING),
            )
        )
        with reading(self._engine) as connection:
            by_name = self._own_environment_first(query.where(endpoints.c.name == name))
            row = connection.execute(by_name.order_by(revisions.c.sequence.desc())).first()
            if row is not None:
                return str(row.name), str(row.version_sequence)
            model = find_model(connection, organisation_id, name)
            if model.name == name:
                raise _not_deployed(connection, model)
        return self.serving(organisation_id, model.name)

    def _own_environment_first(self, query: Select[Any]) -> Select[Any]:
        own = case((endpoints.c.environment == self._environment, 0), else_=1)
        return query.order_by(own, endpoints.c.updated_at.desc()).limit(1)

    def views(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[Deployment]:
        """Rows of ``endpoints`` as everybody may see them, in the same order."""
        newest = _newest_revisions(connection, [row.id for row in rows])
        return [
            Deployment(
                id=row.id,
                name=row.name,
                environment=row.environment,
                model=newest[row.id].model,
                version=newest[row.id].version_sequence,
                reference=newest[row.id].reference,
                revision=newest[row.id].sequence,
                status=self._status(newest[row.id]),
                endpoint_url=f"/api/v1/endpoints/{row.name}/predict",
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
            for row in rows
        ]

    def _status(self, revision: Row[Any]) -> Any:
        # A version wakes on its next request, so one that is merely not loaded is ready.
        return "failed" if self._failed(revision.version_id) else revision.status


def record_deployment(
    connection: Connection,
    model: Row[Any],
    sequence: int,
    environment: str,
    now: str,
    *,
    reference: str | None = None,
) -> Row[Any]:
    """Write the endpoint and its next revision, and tell; returns the endpoint's row.

    For use inside a transaction; ``model`` is a row of ``models``, ``reference`` how the
    version was named where that was by an alias. An endpoint that serves the version already
    stays as it is.
    """
    here = (
        (endpoints.c.organisation_id == model.organisation_id)
        & (endpoints.c.environment == environment)
        & (endpoints.c.name == model.name)
    )
    endpoint = connection.execute(select(endpoints).where(here)).one_or_none()
    if endpoint is None:
        values = {
            "id": new_id("dep"),
            "organisation_id": model.organisation_id,
            "environment": environment,
            "name": model.name,
            "created_at": now,
            "updated_at": now,
        }
        endpoint = connection.execute(insert(endpoints).values(values).returning(endpoints)).one()
    last = _newest_revisions(connection, [endpoint.id]).get(endpoint.id)
    if last is not None and last.version_sequence == sequence and last.status in _WORKING:
        return endpoint
    revision = (last.sequence if last is not None else 0) + 1
    connection.execute(
        insert(revisions).values(
            id=new_id("rev"),
            endpoint_id=endpoint.id,
            sequence=revision,
            model_id=model.id,
            version_sequence=sequence,
            reference=reference,
            status="ready",
            created_at=now,
        )
    )
    outbox.append(
        connection,
        model.organisation_id,
        outbox.ORGANISATION_STREAM,
        "deployment.changed",
        {
            "deployment": model.name,
            "environment": environment,
            "model": model.name,
            "version": sequence,
            "reference": reference,
            "revision": revision,
            "status": "ready",
        },
        now,
    )
    return connection.execute(
        update(endpoints)
        .where(endpoints.c.id == endpoint.id)
        .values(updated_at=now)
        .returning(endpoints)
    ).one()


def _newest_revisions(connection: Connection, endpoint_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Endpoint id -> its newest revision, with the names of model and version."""
    newest = (
        select(revisions.c.endpoint_id, func.max(revisions.c.sequence).label("sequence"))
        .where(revisions.c.endpoint_id.in_(endpoint_ids))
        .group_by(revisions.c.endpoint_id)
        .subquery()
    )
    query = (
        select(revisions, models.c.name.label("model"), model_versions.c.id.label("version_id"))
        .join(
            newest,
            and_(
                revisions.c.endpoint_id == newest.c.endpoint_id,
                revisions.c.sequence == newest.c.sequence,
            ),
        )
        .join(models, models.c.id == revisions.c.model_id)
        .join(
            model_versions,
            and_(
                model_versions.c.model_id == revisions.c.model_id,
                model_versions.c.sequence == revisions.c.version_sequence,
            ),
        )
    )
    return {row.endpoint_id: row for row in connection.execute(query)}


def _not_deployed(connection: Connection, model: Row[Any]) -> ModelNotFoundError:
    newest = select(func.max(model_versions.c.sequence)).where(
        model_versions.c.model_id == model.id
    )
    name, latest = model.name, connection.execute(newest).scalar_one()
    if latest is None:
        return ModelNotFoundError(
            f"Model {name!r} has no version yet; a finished run or an upload registers one.",
            model_id=name,
            choices=[],
        )
    return ModelNotFoundError(
        f"Model {name!r} is registered but not deployed; POST /api/v1/deployments with "
        f'{{"model": "{name}:{latest}"}} deploys it, and {name}:{latest} can be asked by itself.',
        model_id=name,
        choices=[f"{name}:{latest}"],
    )
