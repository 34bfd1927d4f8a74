"""What the platform process left for us in its folder."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from truststram_lab.exceptions import ConfigurationError
from truststram_lab.transport.targets import is_loopback

__all__ = ["LOCK", "LOG", "STANDING", "STATE", "SandboxState", "open_home", "read_state"]

LOCK = "sandbox.lock"
STATE = "sandbox.json"
LOG = "platform.log"

#: the mark of a standing platform's folder
STANDING = "serve.json"


@dataclass(frozen=True)
class SandboxState:
    """A sandbox that answered.

    Args:
        url: its address on this computer.
        api_key: the owner's credential.
        pid: its process.
        version: the platform's version.
        protocol: the wire protocol it speaks.
        instance: names this start of the process; ``/health`` says the same.
        started: whether this very call started it.
        started_at: when it started, ISO 8601.
    """

    url: str
    api_key: str = field(repr=False)
    pid: int
    version: str
    protocol: int
    instance: str
    started: bool
    started_at: str


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    url: str
    api_key: str
    pid: int
    instance: str
    version: str
    protocol: int
    started_at: str


def open_home(home: Path) -> Path:
    """The folder, made private to the user.

    Raises:
        ConfigurationError: it cannot be made, or belongs to another user.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = home.stat()
        if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077:
            home.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"The sandbox's folder {home} cannot be used ({error.strerror}); "
            "set TRUSTSTRAM_HOME to a folder of your own."
        ) from error
    if found.st_uid != os.getuid():
        # The key in somebody else's folder is somebody else's to replace.
        raise ConfigurationError(
            f"The sandbox's folder {home} belongs to another user; "
            "set TRUSTSTRAM_HOME to a folder of your own."
        )
    return home


def read_state(home: Path) -> SandboxState | None:
    """What the state file says; None when there is none or it cannot be trusted."""
    try:
        with (home / STATE).open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            content = _File.model_validate_json(file.read())
    except (OSError, ValidationError):
        return None
    if not content.url.startswith("http://") or not is_loopback(_host(content.url)):
        return None
    return SandboxState(**content.model_dump(), started=False)


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
