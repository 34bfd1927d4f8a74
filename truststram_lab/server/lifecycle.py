"""When the process is idle, whether it is ready, and how it is told to end."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from truststram_lab.exceptions import PlatformUnavailableError
from truststram_lab.schemas.setup import Readiness

from .stores.engine import reading
from .stores.migrations import REVISIONS

__all__ = ["Lifecycle", "ReadinessProbe"]

log = logging.getLogger(__name__)

#: anybody may ask, so the disk is touched no more often than this
_PROBE_S = 1.0


class Lifecycle:
    """Counts what is going on; used in the event loop only.

    ``closing`` is true from the moment the process is told to end: open streams and long
    polls look at it whenever they are woken.
    """

    def __init__(self) -> None:
        self.closing = False
        self._active = 0
        self._last = time.monotonic()
        self._stop: Callable[[], None] | None = None
        self._closed: list[Callable[[], None]] = []

    @contextmanager
    def request(self, *, passive: bool = False) -> Iterator[None]:
        """A request, or a stream, is open; one that only looks on keeps nothing awake."""
        if passive:
            yield
            return
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._last = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended that was not passive; 0 while one is open."""
        return 0.0 if self._active else time.monotonic() - self._last

    def touch(self) -> None:
        """Something else is going on."""
        self._last = time.monotonic()

    def on_stop(self, stop: Callable[[], None]) -> None:
        """``stop`` makes the server leave its loop."""
        self._stop = stop

    def on_closing(self, closed: Callable[[], None]) -> None:
        """Call ``closed`` when the closing begins."""
        self._closed.append(closed)

    def stop(self) -> None:
        """End the process in an orderly way."""
        self.close()
        if self._stop is not None:
            self._stop()

    def close(self) -> None:
        """Tell streams and long polls to end."""
        if not self.closing:
            self.closing = True
            for closed in self._closed:
                closed()


class ReadinessProbe:
    """Tries what every request stands on: the database, its revision, the file store.

    Args:
        blobs: folder of the files.
    """

    def __init__(self, engine: Engine, blobs: Path, lifecycle: Lifecycle) -> None:
        self._engine = engine
        self._incoming = blobs / "incoming"
        self._lifecycle = lifecycle
        self._lock = threading.Lock()
        self._trouble: str | None = None
        self._tried_at = float("-inf")

    def check(self) -> Readiness:
        """All is well, as tried at most a second ago.

        Raises:
            PlatformUnavailableError: one part does not work; says which, never where it is.
        """
        if self._lifecycle.closing:
            raise PlatformUnavailableError("The platform is ending; ask its next process.")
        with self._lock:
            if time.monotonic() - self._tried_at >= _PROBE_S:
                self._trouble = self._database() or self._files()
                self._tried_at = time.monotonic()
            trouble = self._trouble
        if trouble is not None:
            raise PlatformUnavailableError(f"{trouble}; the platform's log has the reason.")
        return Readiness(status="ready", database="ok", migrations="ok", files="ok")

    def _database(self) -> str | None:
        try:
            with reading(self._engine) as connection:
                found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except SQLAlchemyError:
            log.warning("not ready", exc_info=True)
            return "The database does not answer"
        if found != REVISIONS[-1]:
            log.warning("not ready: database at revision %r, not %r", found, REVISIONS[-1])
            return "The database is not at this version's revision"
        return None

    def _files(self) -> str | None:
        try:
            with tempfile.TemporaryFile(dir=self._incoming) as file:
                file.write(b"ready")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            log.warning("not ready", exc_info=True)
            return "The file store cannot be written"
        return None
