"""Notices workers that end while nobody asks them."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from .process import WorkerProcess

__all__ = ["Watch"]


class Watch:
    """One thread that sleeps until a channel hangs up; then its callback is called, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, Callable[[], None]] = {}
        self._reader, self._writer = os.pipe()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, worker: WorkerProcess, died: Callable[[], None]) -> None:
        """Call ``died`` when the worker's channel hangs up, unless it is removed before."""
        with self._lock:
            if self._closed:
                return
            self._watched[worker.fileno()] = died
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="truststram-serving-watch", daemon=True
                )
                self._thread.start()
            os.write(self._writer, b"!")

    def remove(self, worker: WorkerProcess) -> None:
        """Call nobody for it; before its channel is closed."""
        with self._lock:
            if not self._closed and self._watched.pop(worker.fileno(), None) is not None:
                os.write(self._writer, b"!")

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.write(self._writer, b"!")
        if self._thread is not None:
            self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                poller = select.poll()
                poller.register(self._reader, select.POLLIN)
                for fd in self._watched:
                    # No event is asked for: answers are others' to read. A hang-up always comes.
                    poller.register(fd, 0)
            found = [fd for fd, _ in poller.poll()]
            if self._reader in found:
                os.read(self._reader, 4096)
            with self._lock:
                gone = [self._watched.pop(fd) for fd in found if fd in self._watched]
            for died in gone:
                died()
