"""Models, their immutable versions, and the files that hold weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.references import Reference
from truststram_lab.schemas.registry import (
    CreateModel,
    CreateVersion,
    Model,
    ModelVersion,
    SetAlias,
)
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.blobs import Blob, BlobStore, BlobWriter
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import model_versions, models

from .accounts import Principal
from .aliases import aliases_of, check_label, delete_alias, move_alias
from .deletions import delete_model
from .networks import check_architecture, check_weights
from .paging import page
from .references import deployed_versions, find_model, find_version, latest_version, of_model

__all__ = [
    "RegistryService",
    "check_architecture",
    "check_weights",
    "find_model",
    "find_or_create_model",
    "register_version",
]


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

    def first_label(self, organisation_id: str, ref: str) -> str | None:
        """The label that the model's first version was announced with, while it has none."""
        with reading(self._engine) as connection:
            model = find_model(connection, organisation_id, ref)
            label: str | None = model.first_label
            return None if latest_version(connection, model.id) else label

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

    def delete_model(self, organisation_id: str, ref: str) -> None:
        """Remove a model with its versions; see ``deletions.delete_model``."""
        with writing(self._engine) as connection:
            delete_model(connection, organisation_id, ref, timestamp())

    def get_model(self, organisation_id: str, ref: str) -> Model:
        """The model that ``ref`` names, in any form; ModelNotFoundError has the nearest names."""
        with reading(self._engine) as connection:
            row = self._model_of(connection, organisation_id, ref)
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
            model = self._model_of(connection, organisation_id, ref)
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
        if request.architecture is not None:
            check_architecture(request.architecture, request.signature)
        blob = self._checked_weights(organisation_id, request)
        now = timestamp()
        with writing(self._engine) as connection:
            model = find_model(connection, organisation_id, ref)
            row = register_version(connection, model, request, blob.size_bytes, now)
        return _version_view(model.name, row)

    def get_version(self, organisation_id: str, ref: str, which: str) -> ModelVersion:
        """The version ``which``: a number, a label, ``latest``, ``deployed`` or ``@alias``.

        Raises:
            ModelNotFoundError: the model, or that version of it, does not exist.
        """
        return self.resolve(organisation_id, of_model(ref, which))

    def resolve(self, organisation_id: str, asked: Reference | str) -> ModelVersion:
        """The version that a reference means now; a name alone is the newest.

        Raises:
            ModelNotFoundError: the model, its version or its alias does not exist.
        """
        if isinstance(asked, str):
            asked = Reference.parse(asked)
        with reading(self._engine) as connection:
            model = find_model(connection, organisation_id, asked.name)
            row = find_version(connection, model, asked, self._settings.environment)
        return _version_view(model.name, row)

    def set_alias(self, principal: Principal, ref: str, alias: str, request: SetAlias) -> Model:
        """Let an alias of the model name a version; naming the same again changes nothing.

        Raises:
            ModelNotFoundError: no such model or version.
            InvalidInputError: it is no alias; suggests one.
            ConflictError: it is the label of a version, or there are too many.
        """
        with writing(self._engine) as connection:
            model = find_model(connection, principal.organisation_id, ref)
            asked = of_model(model.name, str(request.version))
            version = find_version(connection, model, asked, self._settings.environment)
            move_alias(connection, principal, model, alias, version.sequence, timestamp())
            return self._views(connection, [model])[0]

    def delete_alias(self, principal: Principal, ref: str, alias: str) -> Model:
        """Take an alias of the model away; ModelNotFoundError if it has none of that name."""
        with writing(self._engine) as connection:
            model = find_model(connection, principal.organisation_id, ref)
            delete_alias(connection, principal, model, alias, timestamp())
            return self._views(connection, [model])[0]

    def _model_of(self, connection: Connection, organisation_id: str, ref: str) -> Row[Any]:
        """The model of a reference; a version or an alias that it names must exist."""
        asked = Reference.parse(ref)
        model = find_model(connection, organisation_id, asked.name)
        if asked.is_exact:
            find_version(connection, model, asked, self._settings.environment)
        return model

    def _checked_weights(self, organisation_id: str, request: CreateVersion) -> Blob:
        blob = self.file(organisation_id, request.weights_sha256)
        if blob is None:
            raise InvalidInputError(
                f"No file with SHA-256 {request.weights_sha256} is stored; upload it first with "
                "PUT /api/v1/blobs/<sha256>.",
                field="weights_sha256",
            )
        if request.architecture is not None:
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
        deployed = deployed_versions(connection, self._settings.environment, ids)
        aliases = aliases_of(connection, ids)
        return [
            Model(
                id=row.id,
                name=row.name,
                description=row.description,
                framework=row.framework,
                version_count=counts[row.id].versions if row.id in counts else 0,
                latest_version=counts[row.id].latest if row.id in counts else None,
                deployed_version=deployed.get(row.id),
                aliases=aliases.get(row.id, []),
                type=row.type,
                created_at=row.created_at,
            )
            for row in rows
        ]


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
    sequence = (latest_version(connection, model.id) or 0) + 1
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
    if request.label is not None:
        check_label(connection, model, request.label)
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


def _insert_model(
    connection: Connection, organisation_id: str, request: CreateModel, now: str
) -> Row[Any]:
    row = connection.execute(
        insert(models)
        .values(
            id=new_id("mod"),
            organisation_id=organisation_id,
            name=request.name,
            description=request.description,
            framework=request.framework,
            type=request.type,
            first_label=request.version,
            created_at=now,
        )
        .returning(models)
    ).one()
    outbox.append(
        connection,
        organisation_id,
        outbox.ORGANISATION_STREAM,
        "model.created",
        {"model": row.name, "model_id": row.id},
        now,
    )
    return row


def _version_view(model: str, row: Row[Any]) -> ModelVersion:
    kept = {name: row._mapping[name] for name in ModelVersion.model_fields if name != "model"}
    return ModelVersion.model_validate({"model": model, **kept})
