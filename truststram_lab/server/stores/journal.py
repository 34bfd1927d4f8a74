"""Lines that are kept before anybody is told of them, and taken over in batches later.

A line is handed to the system before ``append`` returns, so it survives the end of the process,
``kill -9`` included; what reads it takes whole segments, makes them durable, and discards them.
Whoever takes over may end between the two: a line can come again, and carries its own id.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from truststram_lab.exceptions import InsufficientResourcesError

__all__ = ["Journal"]

_SUFFIX = ".jsonl"


class Journal:
    """Segments of lines in a folder of this process's own, oldest first.

    Args:
        folder: made if it is not there; what a former process left in it is taken over.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._number = max((_number(path) for path in self._segments()), default=0)
        self._handle: int | None = None
        self._bytes = 0

    def append(self, line: bytes) -> None:
        """Keep a line, which holds no line break.

        Raises:
            InsufficientResourcesError: the disk is full; nothing of the line is kept.
        """
        whole = line + b"\n"
        with self._lock:
            if self._handle is None:
                self._handle, self._bytes = self._next(), 0
            try:
                written = os.write(self._handle, whole)
                if written < len(whole):
                    # A part of a line would be the beginning of the next one.
                    os.ftruncate(self._handle, self._bytes)
                    raise OSError("only a part was written")
            except OSError as error:
                raise InsufficientResourcesError(
                    f"The platform cannot write its log ({error.strerror or error}); free space "
                    "on its disk, and send the request again."
                ) from error
            self._bytes += written

    def taken(self) -> Iterator[tuple[Path, list[bytes]]]:
        """Every segment with its whole lines; ``discard`` it once they are durable elsewhere."""
        with self._lock:
            self._end_segment()
            found = self._segments()
        for path in found:
            # Without its break, a last line was never acknowledged: the process ended within it.
            yield path, path.read_bytes().split(b"\n")[:-1]

    @staticmethod
    def discard(segment: Path) -> None:
        """Forget a segment."""
        segment.unlink(missing_ok=True)

    def close(self) -> None:
        """End the segment; the lines stay for the next process."""
        with self._lock:
            self._end_segment()

    def _end_segment(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _next(self) -> int:
        self._number += 1
        path = self._folder / f"{self._number:012d}{_SUFFIX}"
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"))


def _number(path: Path) -> int:
    return int(path.stem)
