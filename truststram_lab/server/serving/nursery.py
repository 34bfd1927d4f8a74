"""Where workers come from: one template process a runtime, started on first use."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading

from truststram_lab.exceptions import PlatformError

__all__ = ["Nursery"]

log = logging.getLogger(__name__)

_MODULE = "truststram_lab.server.serving.template"

#: Seconds for a template to load its libraries, on a busy computer with a cold disk.
_START_S = 120.0

#: A worker computes on one core: more cores are used by more workers, and threads that a
#: library started would not survive the fork.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
}


class Nursery:
    """Forks workers of one runtime; usable from every thread."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self, channel: socket.socket) -> int:
        """A new worker that serves ``channel``; its process id.

        Raises:
            PlatformError: the template does not start, or cannot fork.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                log.warning("the template of %s workers ended; starting another", self.runtime)
                self._end()
            try:
                control = self._control or self._started()
                socket.send_fds(control, [b"fork"], [channel.fileno()])
                return int(_line(control))
            except (OSError, ValueError, EOFError) as error:
                self._end()
                raise PlatformError(
                    f"A prediction worker could not be started ({error or 'its process ended'}); "
                    "free memory or file handles on the platform's computer and ask again."
                ) from error

    def bury(self, pid: int) -> None:
        """Kill a worker, unless it ended already, and forget it."""
        with self._lock:
            if self._control is None:
                return
            try:
                self._control.sendall(b"bury %d" % pid)
                _line(self._control)
            except (OSError, EOFError):
                # Without its template nobody keeps the number: the closed channel ends it.
                self._end()

    def close(self) -> None:
        """End the template."""
        with self._lock:
            self._end()

    def _started(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            # A session of its own: a signal to the terminal's group is the platform's to handle.
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our module
                [sys.executable, "-m", _MODULE, self.runtime, str(theirs.fileno())],
                env={**os.environ, **_ONE_THREAD},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        ours.settimeout(_START_S)
        if _line(ours) != b"ready":
            raise EOFError
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._control = self._process = None


def _line(control: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        piece = control.recv(64)
        if not piece:
            raise EOFError
        found += piece
    return found.strip()
