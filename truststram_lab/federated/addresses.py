"""Where a federated server of this user listens, and what it leaves in its folder.

TRUSTSTRAM_HOME/federations/<host>-<port>/
    sandbox.json       the platform's own state file: address and owner's key (0600)
    federation.json    which federation and run it serves, and how that stands
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from truststram_lab import config
from truststram_lab.exceptions import ConfigurationError
from truststram_lab.transport import normal_url
from truststram_lab.transport.targets import is_loopback

from .participation.files import private_folder, write_whole

__all__ = ["DEFAULT_ADDRESS", "Address", "Notice", "parse_address", "read_notice", "write_notice"]

DEFAULT_ADDRESS = "localhost:8080"
_NOTICE = "federation.json"


@dataclass(frozen=True)
class Address:
    """``host:port``; ``url`` is plain http at this computer and https anywhere else."""

    host: str
    port: int

    @property
    def local(self) -> bool:
        """Whether it can only be this computer."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.local else 'https'}://{host}:{self.port}"

    @property
    def folder(self) -> Path:
        """The server's folder; every name of this computer is the same one."""
        name = "localhost" if self.local else self.host.replace(":", "_")
        return config.home() / "federations" / f"{name}-{self.port}"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Notice(BaseModel):
    """What the server says of its federation; clients read it to know where to go, and when."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    federation: str
    run: str
    min_clients: int
    status: Literal["open", "completed", "stopped", "failed"] = "open"
    reason: str | None = None
    model: dict[str, Any] | None = Field(default=None, description="the model's configuration")
    server_pid: int


def parse_address(address: str | None = None, *, any_port: bool = False) -> Address:
    """The address ``host:port``: given, else ``TRUSTSTRAM_FL_ADDRESS``, else localhost:8080.

    Raises:
        ConfigurationError: it is not ``host:port``.
    """
    found = config.setting("FL_ADDRESS", address, DEFAULT_ADDRESS)
    text = str(found.value).strip()
    bare = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, colon, port = bare.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if not colon or not host or not (0 if any_port else 1) <= number <= 65_535:
        raise ConfigurationError(
            f"{text!r} is no address of a federated server; write host:port, such as "
            f"{DEFAULT_ADDRESS}."
        )
    made = Address(host.strip("[]").lower(), number)
    if text.startswith("http://") and not made.local:
        raise ConfigurationError(
            f"{text!r} would send updates unencrypted to another computer; use https://{bare}."
        )
    normal_url(made.url)  # refuses what is no host
    return made


def read_notice(folder: Path) -> Notice | None:
    """The notice; None where there is none, or another user wrote it."""
    with contextlib.suppress(OSError, ValidationError):
        path = folder / _NOTICE
        if path.stat().st_uid == os.getuid():
            return Notice.model_validate_json(path.read_bytes())
    return None


def write_notice(folder: Path, notice: Notice) -> None:
    """Tell the clients, atomically."""
    write_whole(private_folder(folder) / _NOTICE, notice.model_dump_json().encode())
