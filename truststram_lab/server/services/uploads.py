"""Files that come in parts: gone on with where they were, and checked before they count.

A part is appended, synced and acknowledged; the length of the file on disk is all that is kept
of it, so whatever dies, the next part begins there. The last one hashes the whole file, and only
what has the announced content becomes a stored file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from truststram_lab.exceptions import (
    ConflictError,
    InsufficientResourcesError,
    InvalidInputError,
)
from truststram_lab.schemas.registry import Upload
from truststram_lab.server.settings import BLOB_LIMIT_BYTES
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import timestamp

__all__ = ["UploadsService"]

_PIECE_BYTES = 2**20


class UploadsService:
    """Takes files in parts, one part of one file at a time."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs
        self._lock = threading.Lock()
        self._busy: set[tuple[str, str]] = set()

    def state(self, organisation_id: str, sha256: str, size_bytes: int) -> Upload:
        """How much of the file is here; 0 where nobody began it."""
        _check_size(size_bytes)
        with reading(self._engine) as connection:
            known = self._blobs.find(connection, organisation_id, sha256)
        if known is not None:
            return _said(sha256, known.size_bytes, known.size_bytes, complete=True)
        part = self._blobs.part(organisation_id, sha256)
        return _said(sha256, size_bytes, min(_length(part), size_bytes))

    def append(
        self, organisation_id: str, sha256: str, size_bytes: int, offset: int, body: bytes
    ) -> Upload:
        """Store the next bytes; with the last ones the file is checked and kept.

        Raises:
            ConflictError: the file goes on elsewhere; the sentence says where.
            InvalidInputError: it is longer than announced, or not the content it was to be;
                then nothing of it is kept.
            InsufficientResourcesError: the disk is full; what was stored before stays.
        """
        now = self.state(organisation_id, sha256, size_bytes)
        if now.complete:
            return now
        with self._alone(organisation_id, sha256):
            part = self._blobs.part(organisation_id, sha256)
            there = _length(part)
            if offset + len(body) <= there:
                return _said(sha256, size_bytes, there)  # an answer was lost; it is here
            if offset != there:
                raise ConflictError(
                    f"The file goes on at byte {there:,}, not at {offset:,}; ask "
                    f"GET /api/v1/uploads/{sha256} and send the rest from there."
                )
            if there + len(body) > size_bytes:
                raise InvalidInputError(
                    f"{there + len(body):,} bytes came of a file that was announced with "
                    f"{size_bytes:,}; send it again with its own size.",
                    field="size_bytes",
                )
            _write(part, there, body)
            if there + len(body) < size_bytes:
                return _said(sha256, size_bytes, there + len(body))
            return self._keep(organisation_id, sha256, part, size_bytes)

    def _keep(self, organisation_id: str, sha256: str, part: Path, size_bytes: int) -> Upload:
        found = _sha256_of(part)
        if found != sha256:
            part.unlink()
            raise InvalidInputError(
                f"The file has SHA-256 {found[:12]}... and not {sha256[:12]}...; nothing was "
                "stored: send it again.",
                field="sha256",
            )
        blob = self._blobs.adopt(organisation_id, part, size_bytes)
        with writing(self._engine) as connection:
            self._blobs.record(connection, organisation_id, blob, timestamp())
        return _said(sha256, size_bytes, size_bytes, complete=True)

    @contextmanager
    def _alone(self, organisation_id: str, sha256: str) -> Iterator[None]:
        key = organisation_id, sha256
        with self._lock:
            if key in self._busy:
                raise ConflictError(
                    f"Somebody else is sending the file {sha256[:12]}... now; ask how far it is in "
                    "a moment."
                )
            self._busy.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(key)


def _said(sha256: str, size_bytes: int, offset: int, *, complete: bool = False) -> Upload:
    return Upload(sha256=sha256, size_bytes=size_bytes, offset=offset, complete=complete)


def _check_size(size_bytes: int) -> None:
    if not 0 < size_bytes <= BLOB_LIMIT_BYTES:
        raise InvalidInputError(
            f"A file of {size_bytes:,} bytes is not taken; it may have 1 to {BLOB_LIMIT_BYTES:,}.",
            field="size_bytes",
        )


def _length(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _write(part: Path, there: int, body: bytes) -> None:
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.seek(there)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if part.exists():
            os.truncate(part, there)  # half a part would be taken for a whole one
        raise InsufficientResourcesError(
            f"The platform cannot store the file now ({error.strerror}); what came before is kept: "
            "make room and send the rest."
        ) from error


def _sha256_of(part: Path) -> str:
    found = hashlib.sha256()
    with part.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            found.update(piece)
    return found.hexdigest()
