"""Files by content: ``blobs/<organisation>/<first two digits>/<sha256>``.

A file is written under a temporary name, synced, renamed, and its folder synced; the
table row comes after that. So a row never points at a missing or torn file, whenever the
process dies.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from sqlalchemy import Connection, bindparam, cast, insert, select

from truststram_lab.exceptions import NotFoundError

from .tables import blobs

__all__ = ["Blob", "BlobStore", "BlobWriter"]

# Built once: putting a statement together costs more than running it.
_SIZE = select(blobs.c.size_bytes).where(
    blobs.c.organisation_id == bindparam("organisation"), blobs.c.sha256 == bindparam("content")
)
_ADD = (
    insert(blobs)
    .from_select(
        ["organisation_id", "sha256", "size_bytes", "created_at"],
        select(
            *(
                cast(bindparam(name), column.type)
                for name, column in (
                    ("organisation", blobs.c.organisation_id),
                    ("content", blobs.c.sha256),
                    ("size", blobs.c.size_bytes),
                    ("now", blobs.c.created_at),
                )
            )
        ).where(~_SIZE.exists()),
    )
    .execution_options(preserve_rowcount=True)
)

_SHA256 = re.compile(r"[0-9a-f]{64}")

#: how long a file that came in parts waits for the rest, in seconds
_PARTS_KEPT_S = 7 * 86_400.0


@dataclass(frozen=True)
class Blob:
    """A stored file: its content's SHA-256 in hexadecimal and its size."""

    sha256: str
    size_bytes: int


class BlobStore:
    """The files of every organisation under one folder (0700)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._parts = root / "parts"
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        #: (organisation, sha256) and content of the file that ``again`` read last
        self._last: tuple[tuple[str, str], bytes] | None = None

    def sweep(self) -> int:
        """Remove what a killed process left half written; returns how many files."""
        leftovers = [path for path in self._incoming.iterdir() if path.is_file()]
        # A file that comes in parts may be gone on with for some days.
        old = time.time() - _PARTS_KEPT_S
        leftovers += [path for path in self._parts.glob("*/*") if path.stat().st_mtime < old]
        for path in leftovers:
            path.unlink()
        return len(leftovers)

    def part(self, organisation_id: str, sha256: str) -> Path:
        """Where the first bytes of a file lie that comes in parts."""
        folder = self._parts / self.path(organisation_id, sha256).parent.parent.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / sha256

    def adopt(self, organisation_id: str, part: Path, size_bytes: int) -> Blob:
        """Keep a complete, synced part under its name, which is its content's; durable then."""
        target = self.path(organisation_id, part.name)
        _make_folders(target)
        part.replace(target)
        _sync_folder(target.parent)
        return Blob(part.name, size_bytes)

    def path(self, organisation_id: str, sha256: str) -> Path:
        """Where the content is or would be; both names are checked, not taken on trust."""
        if not _SHA256.fullmatch(sha256) or not re.fullmatch(r"org_[0-9a-f]+", organisation_id):
            raise NotFoundError(f"{sha256!r} is not the SHA-256 of a stored file.", name=sha256)
        return self._root / organisation_id / sha256[:2] / sha256

    def writer(self, organisation_id: str) -> BlobWriter:
        """A file to fill piece by piece; ``commit`` keeps it, leaving without removes it."""
        return BlobWriter(self, organisation_id, self._incoming)

    def put(self, organisation_id: str, *pieces: bytes | memoryview) -> Blob:
        """Store the pieces, one after the other, durably."""
        with self.writer(organisation_id) as writer:
            for piece in pieces:
                writer.write(piece)
            return writer.commit()

    def open(self, organisation_id: str, sha256: str) -> BinaryIO:
        """The content, for reading piece by piece; NotFoundError if there is none."""
        try:
            return self.path(organisation_id, sha256).open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(
                f"No file with SHA-256 {sha256} is stored; upload it first.", name=sha256
            ) from error

    def read(self, organisation_id: str, sha256: str) -> bytes:
        """The whole content; NotFoundError if there is none."""
        with self.open(organisation_id, sha256) as file:
            return file.read()

    def again(self, organisation_id: str, sha256: str, most_bytes: int) -> bytes | None:
        """The content of a file that many ask for in turn; None if it is larger than that.

        One file is held, the last. Fresh memory of a few megabytes costs more than its hash.

        Raises:
            NotFoundError: there is none.
        """
        key = (organisation_id, sha256)
        last = self._last
        if last is not None and last[0] == key:
            return last[1]
        with self.open(organisation_id, sha256) as file:
            if os.fstat(file.fileno()).st_size > most_bytes:
                return None
            content = file.read()
        self._last = (key, content)
        return content

    def map(self, organisation_id: str, sha256: str) -> memoryview:
        """The whole content without a copy, as long as anything looks into it.

        Raises:
            NotFoundError: there is none.
        """
        with self.open(organisation_id, sha256) as file:
            return _mapped(file)

    @staticmethod
    def record(connection: Connection, organisation_id: str, blob: Blob, now: str) -> bool:
        """Write the row of a stored file; False if it was there already."""
        row = {
            "organisation": organisation_id,
            "content": blob.sha256,
            "size": blob.size_bytes,
            "now": now,
        }
        return bool(connection.execute(_ADD, row).rowcount)

    @staticmethod
    def find(connection: Connection, organisation_id: str, sha256: str) -> Blob | None:
        """The row of a stored file, None if there is none."""
        values = {"organisation": organisation_id, "content": sha256}
        size_bytes = connection.execute(_SIZE, values).scalar_one_or_none()
        return None if size_bytes is None else Blob(sha256, int(size_bytes))


class BlobWriter:
    """One file on its way in; hashes what passes through."""

    def __init__(self, store: BlobStore, organisation_id: str, incoming: Path) -> None:
        self._store = store
        self._organisation_id = organisation_id
        handle, name = tempfile.mkstemp(dir=incoming)
        self._file: BinaryIO = os.fdopen(handle, "w+b")
        self._path = Path(name)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, piece: bytes | memoryview) -> None:
        """Append."""
        self._hash.update(piece)
        self._file.write(piece)
        self.size_bytes += len(piece)

    def content(self) -> memoryview:
        """Everything written so far, to look at it before it is kept; mapped, not copied.

        The map lives as long as anything that looks into it, such as an array.
        """
        self._file.flush()
        return _mapped(self._file, whole=True)

    def commit(self) -> Blob:
        """Keep the file under its content's name; durable when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        target = self._store.path(self._organisation_id, self.sha256)
        _make_folders(target)
        self._path.replace(target)
        _sync_folder(target.parent)
        return Blob(self.sha256, self.size_bytes)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _mapped(file: BinaryIO, *, whole: bool = False) -> memoryview:
    # A file of no bytes cannot be mapped.
    if os.fstat(file.fileno()).st_size == 0:
        return memoryview(b"")
    # All of it at once, where all of it is looked at: page by page costs more than the look.
    flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if whole else 0)
    return memoryview(mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ))


def _make_folders(target: Path) -> None:
    for folder in (target.parent.parent, target.parent):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
