"""Endpoints and their revisions: which version a name's traffic goes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, case, func, insert, select, update

from truststram_lab.exceptions import ModelNotFoundError, NotFoundError, nearest
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.serving import Deployment, Scaling, ScalingConfig
from truststram_lab.server.serving.interface import Place
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.engine import reading
from truststram_lab.server.stores.ids import new_id
from truststram_lab.server.stores.tables import endpoints, model_versions, models, revisions

from .paging import page
from .registry import find_model

__all__ = ["Deployments", "Serving", "record_deployment"]

_WORKING = ("ready", "starting")


#: joins a revision to the version that it serves
_ITS_VERSION = and_(
    model_versions.c.model_id == revisions.c.model_id,
    model_versions.c.sequence == revisions.c.version_sequence,
)


class Deployments:
    """Reads the endpoints of an organisation.

    Args:
        environment: whose endpoint is meant when two environments have the name.
        failed: whether a version (by id) was found to be unusable since.
        workers: how many workers a revision (by id) has of its own now.
    """

    def __init__(
        self,
        engine: Engine,
        environment: str,
        failed: Callable[[str], bool],
        workers: Callable[[str], int],
    ) -> None:
        self._engine = engine
        self._environment = environment
        self._failed = failed
        self._workers = workers

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
        with reading(self._engine) as connection:
            return self.views(connection, [self.row(connection, organisation_id, name)])[0]

    def row(
        self,
        connection: Connection,
        organisation_id: str,
        name: str,
        environment: str | None = None,
    ) -> Row[Any]:
        """The endpoint's row; of several environments the named one, or the platform's own.

        Raises:
            NotFoundError: there is none; has the nearest names.
        """
        mine = endpoints.c.organisation_id == organisation_id
        query = select(endpoints).where(mine, endpoints.c.name == name)
        if environment is not None:
            query = query.where(endpoints.c.environment == environment)
        row = connection.execute(self._own_environment_first(query)).first()
        if row is not None:
            return row
        names = connection.execute(select(endpoints.c.name).where(mine)).scalars().all()
        close = nearest(name, names)
        hint = f"did you mean {close[0]!r}?" if close else "POST /api/v1/deployments makes one."
        raise NotFoundError(f"There is no deployment {name!r}; {hint}", name=name, choices=close)

    def serving(self, organisation_id: str, name: str) -> Serving:
        """What the endpoint ``name`` serves.

        A model's id stands for its name.

        Raises:
            ModelNotFoundError: no such model, or it is not deployed; says how to deploy it.
        """
        query = (
            select(
                models.c.name,
                revisions.c.version_sequence,
                revisions.c.id,
                revisions.c.scaling,
                revisions.c.runtime,
                revisions.c.converted_sha256,
            )
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
                return _serving(row)
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
                runtime=newest[row.id].runtime or "network",
                runtime_reason=newest[row.id].runtime_reason or "",
                scaling=self._scaling(newest[row.id]),
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
            for row in rows
        ]

    def current(self, organisation_id: str, name: str, environment: str) -> Serving | None:
        """What the endpoint of that environment serves; None if there is none."""
        here = and_(
            endpoints.c.organisation_id == organisation_id,
            endpoints.c.name == name,
            endpoints.c.environment == environment,
        )
        with reading(self._engine) as connection:
            row = connection.execute(select(endpoints.c.id).where(here)).one_or_none()
            newest = _newest_revisions(connection, [row.id]).get(row.id) if row else None
        return None if newest is None or newest.status not in _WORKING else _serving(newest)

    def conversion(self, version_id: str) -> Serving | None:
        """How an estimator's version is computed, if it was deployed before."""
        query = (
            select(revisions, models.c.name)
            .join(models, models.c.id == revisions.c.model_id)
            .join(
                model_versions,
                _ITS_VERSION,
            )
            .where(model_versions.c.id == version_id, revisions.c.runtime.is_not(None))
            .order_by(revisions.c.created_at.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _serving(row)

    def _scaling(self, revision: Row[Any]) -> Scaling | None:
        if revision.scaling is None:
            return None
        asked = ScalingConfig.model_validate(revision.scaling)
        return Scaling(
            min_instances=asked.min_instances,
            max_instances=asked.most,
            instances=self._workers(revision.id),
        )

    def _status(self, revision: Row[Any]) -> Any:
        # A version wakes on its next request, so one that is merely not loaded is ready.
        return "failed" if self._failed(revision.version_id) else revision.status


@dataclass(frozen=True)
class Serving:
    """A revision as it is served: which version, by which workers, from which file.

    ``converted_sha256`` is None where the version's own file is used.
    """

    model: str
    sequence: int
    revision_id: str
    scaling: ScalingConfig | None = None
    runtime: str | None = None
    runtime_reason: str | None = None
    converted_sha256: str | None = None

    @property
    def place(self) -> Place | None:
        """Its own workers, if it has any."""
        if self.scaling is None:
            return None
        return Place(self.revision_id, self.scaling.min_instances, self.scaling.most)

    def is_same(self, other: Serving | None) -> bool:
        """Whether a deployment would change nothing."""
        return other is not None and (self.model, self.sequence, self.scaling) == (
            other.model,
            other.sequence,
            other.scaling,
        )


def _serving(row: Row[Any]) -> Serving:
    found = row._mapping
    asked = found["scaling"]
    return Serving(
        model=str(found.get("model") or found["name"]),
        sequence=int(found["version_sequence"]),
        revision_id=str(found["id"]),
        scaling=None if asked is None else ScalingConfig.model_validate(asked),
        runtime=found["runtime"],
        runtime_reason=found.get("runtime_reason"),
        converted_sha256=found["converted_sha256"],
    )


def record_deployment(
    connection: Connection,
    model: Row[Any],
    serving: Serving,
    environment: str,
    now: str,
    *,
    reference: str | None = None,
) -> Row[Any]:
    """Write the endpoint and its next revision, and tell; returns the endpoint's row.

    For use inside a transaction; ``model`` is a row of ``models``, ``reference`` how the
    version was named where that was by an alias. An endpoint that serves the version already,
    in the same way, stays as it is.
    """
    sequence = serving.sequence
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
    if last is not None and last.status in _WORKING and serving.is_same(_serving(last)):
        return endpoint
    revision = (last.sequence if last is not None else 0) + 1
    connection.execute(
        insert(revisions).values(
            id=serving.revision_id,
            endpoint_id=endpoint.id,
            sequence=revision,
            model_id=model.id,
            version_sequence=sequence,
            reference=reference,
            status="ready",
            scaling=None if serving.scaling is None else serving.scaling.model_dump(mode="json"),
            runtime=serving.runtime,
            runtime_reason=serving.runtime_reason,
            converted_sha256=serving.converted_sha256,
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
            _ITS_VERSION,
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
