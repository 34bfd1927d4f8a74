"""One worker process and the pipe to it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from truststram_lab.exceptions import PlatformError

__all__ = ["WorkerDiedError", "WorkerProcess"]

_WORKER_MODULE = "truststram_lab.server.serving.worker"

#: Seconds until a fresh worker has to say that it is ready; the first one imports numpy.
_START_S = 120.0


class WorkerDiedError(Exception):
    """The worker ended, or answered nothing for too long and was ended."""


class WorkerProcess:
    """A worker that is ready.

    It is forked from a server process that has the worker's module loaded already, so only
    the first one costs the imports. The platform runs as a package (``python -m``), so that
    multiprocessing imports no main module in the child. Used by one thread at a time.

    Raises:
        PlatformError: it does not start.
    """

    def __init__(self) -> None:
        try:
            self._pipe, self._process = _started()
        except (OSError, EOFError) as error:
            raise PlatformError(
                f"The prediction worker could not be started ({error}); free memory or file "
                "handles on the platform's computer and ask again."
            ) from error
        assert self._process.pid is not None
        self._pid: int = self._process.pid
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

    @property
    def sentinel(self) -> int:
        """A handle that becomes readable when the process ends."""
        return self._process.sentinel

    def ask(self, message: str, timeout_s: float) -> dict[str, Any]:
        """Send a message (JSON) and wait for its answer.

        Raises:
            WorkerDiedError: no answer, because the process ended or ``timeout_s`` passed.
        """
        try:
            self._pipe.send_bytes(message.encode())
        except OSError as error:
            raise WorkerDiedError("the worker ended") from error
        reply = self._receive(timeout_s)
        self.answered += 1
        return reply

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        if not connection.wait([self._pipe, self._process.sentinel], timeout_s):
            raise WorkerDiedError(f"the worker gave no answer in {timeout_s:g} s")
        try:
            reply: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorkerDiedError("the worker ended") from error
        return reply

    def kill(self) -> None:
        """End it from another thread; whoever waits for its answer gets WorkerDiedError."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def end(self, *, grace_s: float = 0.0) -> None:
        """Close the pipe, which ends an idle worker; after ``grace_s`` seconds kill it."""
        self._pipe.close()
        if grace_s:
            self._process.join(grace_s)
        self._process.kill()
        self._process.join()
        self._process.close()


def _started() -> tuple[connection.Connection, BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_WORKER_MODULE])
    pipe, child = context.Pipe()
    # Named here, imported there: the platform never loads the worker's libraries for this.
    process = context.Process(target=_serve, args=(child,), name="truststram-worker", daemon=True)
    try:
        process.start()
    except BaseException:
        pipe.close()
        raise
    finally:
        # While this end is open here too, a dead worker would look like a silent one.
        child.close()
    return pipe, process


def _serve(pipe: connection.Connection) -> None:
    from .worker import main

    main(pipe)
