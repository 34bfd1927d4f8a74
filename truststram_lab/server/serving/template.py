"""The process from which workers are forked: it has their libraries loaded and does nothing else.

``python -m truststram_lab.server.serving.template RUNTIME FD``, where FD is a socket. Each
message asks for one thing and gets one line:

==============================  ===============================================
message                         answer
==============================  ===============================================
``fork``, with a socket beside  the new worker's process id; it serves the socket
``bury`` and a process id       ``0``, once that worker is killed and gone
==============================  ===============================================

It ends with the platform, whose end of the socket closes then. A worker that ended keeps its
process id until it is buried, so that nobody else's process is ever killed by that number.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys

__all__ = ["RUNTIMES", "main"]

#: what a worker runs -> the module that loads its libraries
RUNTIMES = {"network": "network", "onnx": "onnx", "sklearn": "native"}


def main(runtime: str, fd: int) -> None:
    """Fork workers on demand until the platform is gone."""
    # Ctrl-C in the platform's terminal reaches its whole process group; the socket ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loader = importlib.import_module(f"{__package__}.{RUNTIMES[runtime]}")
    from .worker import serve

    # Pages of what is loaded stay shared: the collector does not write into them.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=fd) as control:
        control.sendall(b"ready\n")
        while True:
            message, fds, _, _ = socket.recv_fds(control, 64, 1)
            if not message:
                return
            if not fds:
                _bury(int(message.split()[1]))
                control.sendall(b"0\n")
                continue
            pid = os.fork()
            if pid == 0:
                control.close()
                _work(serve, socket.socket(fileno=fds[0]), loader)
            os.close(fds[0])
            control.sendall(b"%d\n" % pid)


def _work(serve: object, channel: socket.socket, loader: object) -> None:
    """Be the worker; never returns."""
    status = 1
    try:
        assert callable(serve)
        serve(channel, loader)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


def _bury(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
