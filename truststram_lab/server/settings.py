"""What one platform process is started with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from truststram_lab._version import __version__

__all__ = ["BLOB_LIMIT_BYTES", "JSON_LIMIT_BYTES", "Settings"]

#: The largest body of a JSON request, in bytes.
JSON_LIMIT_BYTES = 10_000_000

#: The largest file or update, in bytes; these are streamed to disk.
BLOB_LIMIT_BYTES = 2**30


@dataclass(frozen=True)
class Settings:
    """Where the platform keeps its state and how it serves.

    Args:
        home: folder of the state (0700).
        port: port to listen on at 127.0.0.1; 0 takes the last one again if free, else any.
        idle_s: seconds without a request or an open stream after which it exits; 0 never.
        database_url: SQLAlchemy URL; None is ``platform.db`` in ``home``.
        environment: name of the environment that results are deployed to.
        instance: names this process, anew at each start.
    """

    home: Path
    port: int = 0
    idle_s: float = 1800.0
    database_url: str | None = None
    environment: str = "sandbox"
    version: str = __version__
    instance: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def url(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.home / 'platform.db'}"

    @property
    def blobs(self) -> Path:
        """The folder of the files."""
        return self.home / "blobs"

    @property
    def log(self) -> Path:
        """The log file."""
        return self.home / "platform.log"

    @property
    def state_file(self) -> Path:
        """Where a process of the same user finds the address and the key (0600)."""
        return self.home / "sandbox.json"
