"""Models, their immutable versions, and the files that hold weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, insert, or_, select

from truststram_lab.exceptions import (
    ConflictError,
    InvalidInputError,
    ModelNotFoundError,
    TrustStramException,
    UpdateRejectedError,
    nearest,
)
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.registry import (
    Architecture,
    CreateModel,
    CreateVersion,
    Model,
    ModelVersion,
)
from truststram_lab.schemas.tables import Signature
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.blobs import Blob, BlobStore, BlobWriter
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import endpoints, model_versions, models, revisions

from .paging import page

__all__ = ["RegistryService", "check_architecture", "check_weights", "register_version"]


class RegistryService:
    """What an organisation has registered."""

    def __init__(self, engine: Engine, blobs: BlobStore, settings: Settings) -> None:
        self._engine = engine
        self._blobs = blobs
        self._settings = settings

    def keep(self, organisation_id: str, writer: BlobWriter, expected_sha256: str) -> bool:
        """Keep an uploaded file under its content; False if it was stored before.

        Raises:
            InvalidInputError: the content is not what its name says; nothing is kept.
        """
        if writer.sha256 != expected_sha256:
            raise InvalidInputError(
                f"The body's SHA-256 is {writer.sha256}, not {expected_sha256}; send it again.",
                field="sha256",
            )
        blob = writer.commit()
        with writing(self._engine) as connection:
            return self._blobs.record(connection, organisation_id, blob, timestamp())

    def file(self, organisation_id: str, sha256: str) -> Blob | None:
        """The stored file of that content, None if the organisation has none."""
        with reading(self._engine) as connection:
            return self._blobs.find(connection, organisation_id, sha256)

    def list_models(
        self, organisation_id: str, *, limit: int, cursor: str | None, search: str | None
    ) -> Page[Model]:
        """The models, newest first."""
        query = select(models).where(models.c.organisation_id == organisation_id)
        with reading(self._engine) as connection:
            rows, following = page(
                connection, query, models, limit=limit, cursor=cursor, search=search
            )
            return Page[Model](items=self._views(connection, rows), next_cursor=following)

    def create_model(self, organisation_id: str, request: CreateModel) -> Model:
        """A new line of versions; ConflictError if the name is taken."""
        with writing(self._engine) as connection:
            taken = connection.execute(
                select(models.c.id).where(
                    models.c.organisation_id == organisation_id, models.c.name == request.name
                )
            ).one_or_none()
            if taken is not None:
                raise ConflictError(
                    f"There is a model {request.name!r} already; register a version of it, or "
                    "choose another name."
                )
            row = _insert_model(connection, organisation_id, request, timestamp())
            return self._views(connection, [row])[0]

    def get_model(self, organisation_id: str, ref: str) -> Model:
        """The model of that name or id; ModelNotFoundError has the nearest names."""
        with reading(self._engine) as connection:
            row = find_model(connection, organisation_id, ref)
            return self._views(connection, [row])[0]

    def list_versions(
        self, organisation_id: str, ref: str, *, limit: int, cursor: str | None
    ) -> Page[ModelVersion]:
        """The model's versions, newest first; the cursor is a sequence."""
        before = None
        if cursor is not None:
            if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
                raise InvalidInputError(
                    f"{cursor[:80]!r} is not a cursor of this listing; leave it out to start anew.",
                    field="cursor",
                )
            before = int(cursor)
        with reading(self._engine) as connection:
            model = find_model(connection, organisation_id, ref)
            query = select(model_versions).where(model_versions.c.model_id == model.id)
            if before is not None:
                query = query.where(model_versions.c.sequence < before)
            query = query.order_by(model_versions.c.sequence.desc()).limit(limit + 1)
            rows = connection.execute(query).all()
        items = [_version_view(model.name, row) for row in rows[:limit]]
        following = str(items[-1].sequence) if len(rows) > limit else None
        return Page[ModelVersion](items=items, next_cursor=following)

    def create_version(
        self, organisation_id: str, ref: str, request: CreateVersion
    ) -> ModelVersion:
        """Register weights that were uploaded before, after reading them once.

        Raises:
            InvalidInputError: the file is missing, malformed or not of the architecture.
            ConflictError: the model has a version with that label.
        """
        self.get_model(organisation_id, ref)
        check_architecture(request.architecture, request.signature)
        blob = self._checked_weights(organisation_id, request)
        now = timestamp()
        with writing(self._engine) as connection:
            model = find_model(connection, organisation_id, ref)
            row = register_version(connection, model, request, blob.size_bytes, now)
        return _version_view(model.name, row)

    def get_version(self, organisation_id: str, ref: str, which: str) -> ModelVersion:
        """The version ``which``: a sequence, ``latest`` or ``deployed``.

        Raises:
            ModelNotFoundError: the model, or that version of it, does not exist.
        """
        with reading(self._engine) as connection:
            model = find_model(connection, organisation_id, ref)
            latest = _latest(connection, model.id)
            if which == "latest":
                sequence = latest
            elif which == "deployed":
                sequence = self._deployed(connection, [model.id]).get(model.id)
            else:
                valid = which.isascii() and which.isdigit() and len(which) < 10
                sequence = int(which) if valid else None
            row = None
            if sequence is not None:
                row = connection.execute(
                    select(model_versions).where(
                        model_versions.c.model_id == model.id,
                        model_versions.c.sequence == sequence,
                    )
                ).one_or_none()
        if row is None:
            raise _no_version(model.name, which, latest)
        return _version_view(model.name, row)

    def _checked_weights(self, organisation_id: str, request: CreateVersion) -> Blob:
        blob = self.file(organisation_id, request.weights_sha256)
        if blob is None:
            raise InvalidInputError(
                f"No file with SHA-256 {request.weights_sha256} is stored; upload it first with "
                "PUT /api/v1/blobs/<sha256>.",
                field="weights_sha256",
            )
        content = self._blobs.read(organisation_id, request.weights_sha256)
        check_weights(content, request.architecture, "weights_sha256")
        return blob

    def _views(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[Model]:
        ids = [row.id for row in rows]
        counts = {
            row.model_id: row
            for row in connection.execute(
                select(
                    model_versions.c.model_id,
                    func.count().label("versions"),
                    func.max(model_versions.c.sequence).label("latest"),
                )
                .where(model_versions.c.model_id.in_(ids))
                .group_by(model_versions.c.model_id)
            )
        }
        deployed = self._deployed(connection, ids)
        return [
            Model(
                id=row.id,
                name=row.name,
                description=row.description,
                framework=row.framework,
                version_count=counts[row.id].versions if row.id in counts else 0,
                latest_version=counts[row.id].latest if row.id in counts else None,
                deployed_version=deployed.get(row.id),
                created_at=row.created_at,
            )
            for row in rows
        ]

    def _deployed(self, connection: Connection, model_ids: Sequence[str]) -> dict[str, int]:
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
                endpoints.c.environment == self._settings.environment,
            )
            .order_by(revisions.c.created_at)
        )
        return {row.model_id: row.version_sequence for row in connection.execute(query)}


def find_model(connection: Connection, organisation_id: str, ref: str) -> Row[Any]:
    """The row of the model of that name or id.

    Raises:
        ModelNotFoundError: with the nearest names.
    """
    row = connection.execute(
        select(models).where(
            models.c.organisation_id == organisation_id,
            or_(models.c.name == ref, models.c.id == ref),
        )
    ).one_or_none()
    if row is not None:
        return row
    names = connection.execute(
        select(models.c.name).where(models.c.organisation_id == organisation_id)
    ).scalars()
    close = nearest(ref, list(names))
    hint = f"did you mean {close[0]!r}?" if close else "GET /api/v1/models lists what there is."
    raise ModelNotFoundError(f"There is no model {ref!r}; {hint}", model_id=ref, choices=close)


def find_or_create_model(
    connection: Connection, organisation_id: str, name: str, now: str
) -> Row[Any]:
    """The row of the model ``name``, made if there is none."""
    row = connection.execute(
        select(models).where(models.c.organisation_id == organisation_id, models.c.name == name)
    ).one_or_none()
    return row or _insert_model(connection, organisation_id, CreateModel(name=name), now)


def register_version(
    connection: Connection, model: Row[Any], request: CreateVersion, size_bytes: int, now: str
) -> Row[Any]:
    """Write the next version of a model, its label counting 1.0.0, 1.1.0, 1.2.0, and its event."""
    sequence = (_latest(connection, model.id) or 0) + 1
    labels = set(
        connection.execute(
            select(model_versions.c.label).where(model_versions.c.model_id == model.id)
        ).scalars()
    )
    if request.label in labels:
        raise ConflictError(
            f"Model {model.name!r} has a version {request.label!r} already; choose another label "
            "or leave it out."
        )
    minor = sequence - 1
    while request.label is None and f"1.{minor}.0" in labels:
        minor += 1
    content = request.model_dump(mode="json", exclude={"label"})
    row = connection.execute(
        insert(model_versions)
        .values(
            id=new_id("ver"),
            organisation_id=model.organisation_id,
            model_id=model.id,
            sequence=sequence,
            label=request.label or f"1.{minor}.0",
            size_bytes=size_bytes,
            created_at=now,
            **content,
        )
        .returning(model_versions)
    ).one()
    outbox.append(
        connection,
        model.organisation_id,
        outbox.ORGANISATION_STREAM,
        "model.version_created",
        {"model": model.name, "version": sequence, "label": row.label},
        now,
    )
    return row


def check_architecture(architecture: Architecture, signature: Signature) -> None:
    """Refuse a network whose outputs are not one log-odds, or one logit a class."""
    widths = [layer.units for layer in architecture.layers if layer.type == "dense"]
    expected = 1 if signature.positive_class is not None else len(signature.classes)
    if not widths or widths[-1] != expected or architecture.layers[-1].type != "dense":
        raise InvalidInputError(
            f"The last layer must be dense with {expected} output{'s' * (expected != 1)} for the "
            f"{len(signature.classes)} classes; it has {widths[-1] if widths else 0}.",
            field="architecture",
        )


def check_weights(content: bytes, architecture: Architecture, field: str) -> dict[str, Any]:
    """The arrays of a safetensors file that fits ``architecture``, or InvalidInputError."""
    # numpy is loaded on first use: the platform listens before that
    import numpy as np

    from truststram_lab.learning import weights
    from truststram_lab.learning.network import expected_shapes

    try:
        state, _ = weights.decode(content)
        kinds = {array.dtype for array in state.values()}
        if len(kinds) != 1 or next(iter(kinds)) not in (np.float32, np.float64):
            raise UpdateRejectedError("All arrays must be float32, or all float64.")
        dtype = next(iter(kinds))
        like = {
            name: np.broadcast_to(np.zeros((), dtype), shape)
            for name, shape in expected_shapes(architecture).items()
        }
        weights.check_update(state, like)
    except TrustStramException as error:
        raise InvalidInputError(
            f"The weights do not fit the architecture: {error.message}", field=field
        ) from error
    return state


def _insert_model(
    connection: Connection, organisation_id: str, request: CreateModel, now: str
) -> Row[Any]:
    return connection.execute(
        insert(models)
        .values(
            id=new_id("mod"),
            organisation_id=organisation_id,
            name=request.name,
            description=request.description,
            framework=request.framework,
            created_at=now,
        )
        .returning(models)
    ).one()


def _latest(connection: Connection, model_id: str) -> int | None:
    query = select(func.max(model_versions.c.sequence)).where(model_versions.c.model_id == model_id)
    found: int | None = connection.execute(query).scalar_one()
    return found


def _no_version(model: str, which: str, latest: int | None) -> ModelNotFoundError:
    if which == "deployed":
        fact = f"Model {model!r} is not deployed; POST /api/v1/deployments deploys a version."
    elif latest is None:
        fact = f"Model {model!r} has no version yet; a finished run or an upload registers one."
    else:
        fact = f"Model {model!r} has no version {which}; the latest is {latest}."
    choices = [str(latest)] if latest is not None else []
    return ModelNotFoundError(fact, model_id=f"{model}:{which}", choices=choices)


def _version_view(model: str, row: Row[Any]) -> ModelVersion:
    kept = {name: row._mapping[name] for name in ModelVersion.model_fields if name != "model"}
    return ModelVersion.model_validate({"model": model, **kept})
