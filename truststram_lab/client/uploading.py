"""A file of any size, sent in parts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from truststram_lab.exceptions import InvalidInputError, NotFoundError
from truststram_lab.schemas.registry import Upload
from truststram_lab.transport import Call
from truststram_lab.transport.calls import Steps

__all__ = ["uploaded"]

#: one request's share; what is in memory of a file
_PART_BYTES = 8 * 2**20
_PART_S = 120.0


def uploaded(file: BinaryIO | str | Path) -> Steps[str]:
    """Sends what the platform does not have of the file yet; the value is its sha256.

    Args:
        file: a path, or a file opened for reading bytes, from where it stands to its end.

    Raises:
        NotFoundError: there is no file at the path.
        InvalidInputError: it is no file of bytes, cannot be read twice, or is empty.
    """
    if isinstance(file, (str, Path)):
        path = Path(file)
        if not path.is_file():
            raise NotFoundError(f"There is no file {str(path)!r}.", name=str(path))
        with path.open("rb") as opened:
            return (yield from _sent(opened))
    if not hasattr(file, "read"):
        raise InvalidInputError(
            f"A {type(file).__name__} is no file; give a path, or a file that was opened with "
            "open(path, 'rb').",
            field="file",
        )
    return (yield from _sent(file))


def _sent(file: BinaryIO) -> Steps[str]:
    try:
        begin = file.tell()
    except (OSError, AttributeError) as error:
        raise InvalidInputError(
            "The file cannot be read twice, and its SHA-256 goes before it; write it to a file "
            "first.",
            field="file",
        ) from error
    found, size = hashlib.sha256(), 0
    while piece := file.read(_PART_BYTES):
        if not isinstance(piece, bytes):
            raise InvalidInputError(
                "The file was opened as text; open it with open(path, 'rb').", field="file"
            )
        found.update(piece)
        size += len(piece)
    if not size:
        raise InvalidInputError("The file is empty.", field="file")
    sha256 = found.hexdigest()
    path, query = f"/api/v1/uploads/{sha256}", {"size_bytes": size}
    state: Upload = yield Call("GET", path, Upload, query=query)
    while not state.complete:
        file.seek(begin + state.offset)
        part = file.read(_PART_BYTES)
        if not part:
            raise InvalidInputError("The file became shorter while it was sent.", field="file")
        state = yield Call(
            "PUT",
            path,
            Upload,
            query={**query, "offset": state.offset},
            content=part,
            timeout_s=_PART_S,
            # What is sent twice is there already, and the answer says so.
            idempotency_key="",
            repeatable=True,
        )
    return sha256
