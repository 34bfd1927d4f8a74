"""Bytes at the socket."""

from __future__ import annotations

import threading

__all__ = ["Traffic"]


class Traffic:
    """What a driver wrote to and read from its sockets: headers, TLS records and retries too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = 0
        self._received = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes written so far."""
        return self._sent

    @property
    def received_bytes(self) -> int:
        """Bytes read so far."""
        return self._received

    def add(self, *, sent: int = 0, received: int = 0) -> None:
        """Count one write or read; any thread may."""
        with self._lock:
            self._sent += sent
            self._received += received

    def __repr__(self) -> str:
        return f"Traffic(sent_bytes={self._sent}, received_bytes={self._received})"
