"""TLS without I/O, so that the bytes of the handshake and the records can be counted.

Every step is a generator: it yields bytes to write to the socket, or None to be sent the
next bytes read from it (empty at the end).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar

T = TypeVar("T")

#: yields bytes to write or None to read; receives what was read
Steps = Generator[bytes | None, bytes, T]

__all__ = ["Steps", "TlsSession"]


class TlsSession:
    """One client's TLS connection between two memory buffers."""

    def __init__(self, context: ssl.SSLContext, hostname: str | None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)

    def handshake(self) -> Steps[None]:
        """Agree on keys and verify the certificate; raises ``ssl.SSLError``."""
        yield from self._drive(self.ssl_object.do_handshake)

    def read(self, max_bytes: int) -> Steps[bytes]:
        """Up to ``max_bytes`` of plaintext; empty at the end of the connection."""
        try:
            return (yield from self._drive(partial(self.ssl_object.read, max_bytes)))
        except ssl.SSLZeroReturnError:
            return b""

    def write(self, data: bytes) -> Steps[None]:
        """Send all of ``data``."""
        rest = memoryview(data)
        while rest:
            written = yield from self._drive(partial(self.ssl_object.write, rest))
            rest = rest[written:]

    def _drive(self, act: Callable[[], T]) -> Steps[T]:
        while True:
            hungry = False
            try:
                result = act()
            except ssl.SSLWantReadError:
                hungry = True
            if pending := self._outgoing.read():
                yield pending
            if not hungry:
                return result
            received = yield None
            if received:
                self._incoming.write(received)
            else:
                self._incoming.write_eof()
