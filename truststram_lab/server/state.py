"""The platform's folder: who owns it, where it was reached last, and a sandbox's key."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from truststram_lab.exceptions import ConfigurationError
from truststram_lab.schemas.base import PROTOCOL

from .settings import Settings
from .stores.ids import timestamp

__all__ = [
    "Remembered",
    "listen",
    "listen_at",
    "own",
    "read_state",
    "resolve",
    "write_standing",
    "write_state",
]

HOST = "127.0.0.1"

#: how long a start waits for a former process to let go of the folder, in seconds
_HANDOVER_S = 5.0


@dataclass(frozen=True)
class Remembered:
    """What the former process left; None where it left nothing usable."""

    port: int | None = None
    api_key: str | None = None


def own(home: Path, way_out: str = "use it, or set TRUSTSTRAM_HOME to another folder") -> IO[bytes]:
    """Take the folder for this process; it is free again when the file is closed.

    Args:
        way_out: what to do if another platform has it, for the error's sentence.

    Raises:
        ConfigurationError: another platform has it.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    file = (home / "platform.lock").open("ab")
    deadline = time.monotonic() + _HANDOVER_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise ConfigurationError(
                    f"A platform is running for {home} already; {way_out}."
                ) from None
            time.sleep(0.02)
        else:
            return file


def read_state(path: Path) -> Remembered:
    """The former address and key; a missing or damaged file is nothing."""
    try:
        found = json.loads(path.read_bytes())
        port = urlsplit(str(found["url"])).port
        key = str(found["api_key"])
    except (OSError, ValueError, KeyError, TypeError):
        return Remembered()
    return Remembered(port=port, api_key=key)


def write_state(settings: Settings, port: int, api_key: str) -> None:
    """Tell this user's processes where the platform is and how to enter (0600, atomically)."""
    document = {**_about(settings, f"http://{HOST}:{port}"), "api_key": api_key}
    _write(settings.state_file, document)


def write_standing(settings: Settings, url: str) -> None:
    """Mark the folder as a standing platform's, and tell where it is; there is no key in it."""
    _write(settings.standing_file, _about(settings, url))


def _about(settings: Settings, url: str) -> dict[str, object]:
    return {
        "url": url,
        "pid": os.getpid(),
        "instance": settings.instance,
        "version": settings.version,
        "protocol": PROTOCOL,
        "started_at": timestamp(),
    }


def _write(path: Path, document: dict[str, object]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def listen(port: int, former: int | None) -> socket.socket:
    """A socket bound at loopback: to ``port``, or for 0 to ``former`` if it is free, else any.

    Raises:
        ConfigurationError: ``port`` was asked for and is taken.
    """
    if port:
        try:
            return _bound(port)
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} of {HOST} cannot be used ({error.strerror}); choose another with "
                "--port, or 0 for any."
            ) from error
    if former:
        with contextlib.suppress(OSError):  # somebody else has it now
            return _bound(former)
    return _bound(0)


def resolve(host: str) -> str:
    """The address that ``host`` stands for; itself if it is one.

    Raises:
        ConfigurationError: nobody knows that name.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(
            f"--host {host!r} is no address of this computer ({error.strerror}); use 127.0.0.1, or "
            "0.0.0.0 for all of them."
        ) from error
    return str(found[0][4][0])


def listen_at(address: str, port: int) -> socket.socket:
    """A socket bound to ``port`` of ``address``; 0 is any free one.

    Raises:
        ConfigurationError: it is taken, or not allowed, or not this computer's.
    """
    try:
        return _bound(port, address)
    except OSError as error:
        raise ConfigurationError(
            f"Port {port} of {address} cannot be used ({error.strerror}); choose another with "
            "--port, or 0 for any, and an address of this computer with --host."
        ) from error


def _bound(port: int, address: str = HOST) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
