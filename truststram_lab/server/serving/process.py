"""One worker process and the channel to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from truststram_lab.exceptions import PlatformError

from . import wire
from .nursery import Nursery

__all__ = ["WorkerDiedError", "WorkerProcess"]

#: Seconds until a fresh worker has to say that it is ready.
_START_S = 120.0

#: A worker's answer: the header, and one body a request.
Reply = tuple[dict[str, Any], list[bytes]]


class WorkerDiedError(Exception):
    """The worker ended, or answered nothing for too long and was ended."""


class WorkerProcess:
    """A worker that is ready; asked by one thread at a time.

    Raises:
        PlatformError: it does not start.
    """

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._channel, theirs = socket.socketpair()
        try:
            self._pid = nursery.fork(theirs)
        except BaseException:
            self._channel.close()
            raise
        finally:
            # While this end is open here too, a dead worker would look like a silent one.
            theirs.close()
        self._buried = False
        self.answered = 0
        try:
            self._receive(_START_S)
        except WorkerDiedError as error:
            self.end()
            raise PlatformError(
                "The prediction worker did not start; the platform's log has the reason."
            ) from error

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._pid

    def fileno(self) -> int:
        """The channel's handle, which hangs up when the process ends; -1 once it was closed."""
        return self._channel.fileno()

    def ask(
        self, header: Mapping[str, Any], bodies: Sequence[bytes] = (), *, timeout_s: float
    ) -> Reply:
        """Send a message and wait for its answer.

        Raises:
            WorkerDiedError: no answer, because the process ended or ``timeout_s`` passed.
        """
        try:
            self._channel.settimeout(timeout_s)
            wire.send(self._channel, header, bodies)
        except OSError as error:
            raise WorkerDiedError("the worker ended") from error
        reply = self._receive(timeout_s)
        self.answered += 1
        return reply

    def _receive(self, timeout_s: float) -> Reply:
        try:
            self._channel.settimeout(timeout_s)
            return wire.receive(self._channel)
        except TimeoutError as error:
            raise WorkerDiedError(f"the worker gave no answer in {timeout_s:g} s") from error
        except (EOFError, OSError) as error:
            raise WorkerDiedError("the worker ended") from error

    def kill(self) -> None:
        """End it from another thread; whoever waits for its answer gets WorkerDiedError."""
        if not self._buried:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def end(self) -> None:
        """End it, whatever it does."""
        self._buried = True
        self._channel.close()
        self._nursery.bury(self._pid)
