"""A run that another kernel works on, seen from here through its events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from truststram_lab.schemas.federation import Run

from .handle import RunHandle, is_settled

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

__all__ = ["WatchedRun"]

#: Looks at a completed run, two a second, after which its owner is taken to be gone.
_PATIENCE = 60


class WatchedRun(RunHandle):
    """Looks at a run without owning it; closing the view changes nothing."""

    def __init__(self, client: TrustStramClient, run: Run) -> None:
        super().__init__(client, run)
        self._news = threading.Event()
        self._closed = threading.Event()
        self._following = False

    @property
    def active(self) -> bool:
        """Whether this kernel is following it now."""
        return self._following

    def request_stop(self) -> None:
        """Ask the platform to stop the run, wherever it is trained."""
        threading.Thread(
            target=self._client.runs.stop, args=(self.name,), name=f"stop {self.name}", daemon=True
        ).start()

    def follow(self, tick: Callable[[], None] | None = None) -> WatchedRun:
        """Read the run again at each of its events, until nothing more will happen."""
        if is_settled(self._run):
            return self
        stream = self._client.events.stream(f"run:{self._run.id}", after=self._run.last_event)

        def listen() -> None:
            for _ in stream:
                self._news.set()

        listener = threading.Thread(target=listen, name=f"watch {self.name}", daemon=True)
        listener.start()
        self._following = True
        try:
            self._news.set()
            quiet = 0
            while not is_settled(self._run) and not self._closed.is_set() and quiet < _PATIENCE:
                heard = self._news.wait(0.1)
                # The stream ends with the training; the owner's comparison comes after it.
                ended = not heard and not listener.is_alive()
                if ended:
                    self._closed.wait(0.5)
                if heard or ended:
                    self._news.clear()
                    former, self._run = self._run, self._client.runs.get(self.name)
                    quiet = quiet + 1 if former.updated_at == self._run.updated_at else 0
                if tick is not None:
                    tick()
        finally:
            self._following = False
            stream.close()
            listener.join(2.0)
        return self

    def close(self) -> None:
        """Look away."""
        self._closed.set()
