"""Files that are whole or not there, whenever the process dies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import uuid
from pathlib import Path
from urllib.parse import quote

from truststram_lab import config

__all__ = ["device_name", "folder_name", "private_folder", "remove", "write_whole"]

#: File systems take names of 255 bytes; what is longer is cut and told apart by its digest.
_LONGEST = 120


def folder_name(name: str) -> str:
    """``name`` as one part of a path, different for different names."""
    quoted = (
        quote(name, safe=" @+=,").replace(".", "%2E")
        if name.startswith(".")
        else quote(name, safe=" @+=,")
    )
    if len(quoted) <= _LONGEST:
        return quoted
    return f"{quoted[:_LONGEST]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def device_name(home: Path | None = None) -> str:
    """What this computer calls itself before a platform: a random name, the same every time.

    It tells two participants of one identity apart and says nothing about the computer.
    """
    path = (home or config.home()) / "device"
    private_folder(path.parent)
    if not path.exists():
        aside = path.with_name(f".{path.name}-{uuid.uuid4()}")
        write_whole(aside, f"device-{uuid.uuid4().hex[:12]}".encode())
        with contextlib.suppress(FileExistsError):  # another process was first: its name counts
            os.link(aside, path)
        aside.unlink()
    return path.read_text().strip()


def private_folder(path: Path) -> Path:
    """Make the folder and those above it, for this user alone, and return it."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
    return path


def write_whole(path: Path, *parts: bytes) -> None:
    """Put ``parts`` into a file of that name, 0600: written aside, synced, renamed, synced.

    A process that dies on the way leaves the former file, or the new one whole.
    """
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)  # noqa: PTH105 - one name for tests to stop at
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete the file for good; nothing happens where there is none."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in the folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
