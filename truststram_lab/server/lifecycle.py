"""When the process is idle, and how it is told to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Lifecycle"]


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
    def request(self) -> Iterator[None]:
        """A request, or a stream, is open."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._last = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended; 0 while one is open."""
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
