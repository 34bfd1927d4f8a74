"""Personal models: each site keeps its own here, and nobody else reads it."""

from __future__ import annotations

from sqlalchemy import Engine, insert, select, update

from truststram_lab.exceptions import InvalidInputError, NotFoundError
from truststram_lab.server.stores.blobs import BlobStore, BlobWriter
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import timestamp
from truststram_lab.server.stores.tables import personal_states

from .accounts import Principal
from .updates import read_metrics

__all__ = ["PersonalService"]

_NAME_LIMIT = 255


class PersonalService:
    """The personal states of the sites, by the name that a site gives each."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs

    def find(self, principal: Principal, name: str) -> str:
        """The SHA-256 of the state that was uploaded last.

        Raises:
            NotFoundError: this site has uploaded none of that name.
        """
        query = select(personal_states.c.sha256).where(
            personal_states.c.principal_id == principal.id, personal_states.c.name == name
        )
        with reading(self._engine) as connection:
            found: str | None = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise NotFoundError(
                f"This site has no personal model {name[:80]!r}; upload one first.", name=name
            )
        return found

    def put(self, principal: Principal, name: str, writer: BlobWriter) -> None:
        """Keep the received file as the site's personal state of that name.

        Raises:
            UpdateRejectedError: it is no safetensors file, or a value is not finite.
            InvalidInputError: the name cannot be used.
        """
        from truststram_lab.learning import weights

        if not (0 < len(name) <= _NAME_LIMIT and name.isprintable()):
            raise InvalidInputError(
                f"{name[:80]!r} is no name of a personal model; take 1 to {_NAME_LIMIT} printable "
                "characters.",
                field="name",
            )
        state, metadata = weights.decode(writer.content())
        weights.check_update(state, state)
        read_metrics(metadata.get("metrics", "{}"))
        blob = writer.commit()
        now = timestamp()
        with writing(self._engine) as connection:
            self._blobs.record(connection, principal.organisation_id, blob, now)
            values = {"sha256": blob.sha256, "size_bytes": blob.size_bytes, "updated_at": now}
            known = connection.execute(
                update(personal_states)
                .where(
                    personal_states.c.principal_id == principal.id,
                    personal_states.c.name == name,
                )
                .values(**values)
            ).rowcount
            if not known:
                connection.execute(
                    insert(personal_states).values(
                        principal_id=principal.id,
                        name=name,
                        organisation_id=principal.organisation_id,
                        **values,
                    )
                )
