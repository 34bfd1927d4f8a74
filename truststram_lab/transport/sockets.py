"""Sockets that count what crosses them, TLS included, in the shape of the HTTP library's backends.

They wrap the library's own backends, which the drivers hand in, so that no type of the
library is known here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import urllib.request
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from truststram_lab.exceptions import ConfigurationError

from .targets import is_loopback
from .tls import Steps, TlsSession
from .traffic import Traffic

__all__ = ["AsyncCountedNetwork", "CountedNetwork", "HandshakeError", "proxy_for", "tls_context"]

T = TypeVar("T")

_RECORD_BYTES = 65_536


class HandshakeError(OSError):
    """No TLS session came about, so no request was sent."""


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for ``url``; never one for this computer."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def tls_context(create: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """The verifying context, made once for each setting of the certificate variables.

    Raises:
        ConfigurationError: ``SSL_CERT_FILE`` is no file of certificates.
    """
    file = os.environ.get("SSL_CERT_FILE")
    try:
        return _context(create, file, os.environ.get("SSL_CERT_DIR"))
    except OSError as error:  # ssl.SSLError among them
        raise ConfigurationError(
            f"SSL_CERT_FILE={file} cannot be used ({error.strerror or error}); set it to a PEM "
            "file of certificate authorities, or unset it."
        ) from error


@lru_cache(maxsize=8)
def _context(create: Callable[[], ssl.SSLContext], *_settings: str | None) -> ssl.SSLContext:
    return create()


class CountedNetwork:
    """Opens counted connections and can end them all from any thread."""

    def __init__(self, backend: Any, traffic: Traffic) -> None:
        self._backend = backend
        self._traffic = traffic
        self._open: weakref.WeakSet[_Counted] = weakref.WeakSet()

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _Counted:
        stream = _Counted(self._backend.connect_tcp(*args, **kwargs), self._traffic)
        self._open.add(stream)
        return stream

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)

    def abort(self) -> None:
        """End every connection, also under threads that wait on it."""
        for stream in list(self._open):
            found = stream.get_extra_info("socket")
            # Closing would not wake a waiting reader; a shutdown does.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)


class _Counted:
    def __init__(self, inner: Any, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        chunk: bytes = self._inner.read(max_bytes, timeout)
        self._traffic.add(received=len(chunk))
        return chunk

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            # A view: what the socket did not take at once is cut off without a copy.
            self._inner.write(memoryview(buffer), timeout)
            self._traffic.add(sent=len(buffer))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _Secured:
        return _Secured(self, TlsSession(ssl_context, server_hostname), timeout)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Secured:
    """TLS over another stream, which is the one that counts."""

    def __init__(self, inner: Any, session: TlsSession, timeout: float | None) -> None:
        self._inner = inner
        self._session = session
        try:
            self._obey(session.handshake(), timeout)
        except ssl.SSLError as error:
            self.close()
            raise HandshakeError(str(error)) from error

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._obey(self._session.read(max_bytes), timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._obey(self._session.write(buffer), timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _Secured:
        return _Secured(self, TlsSession(ssl_context, server_hostname), timeout)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._session.ssl_object
        return self._inner.get_extra_info(info)

    def _obey(self, steps: Steps[T], timeout: float | None) -> T:
        received: bytes | None = None
        while True:
            try:
                wanted = next(steps) if received is None else steps.send(received)
            except StopIteration as done:
                value: T = done.value
                return value
            received = b""
            if wanted is None:
                received = self._inner.read(_RECORD_BYTES, timeout)
            else:
                self._inner.write(wanted, timeout)


class AsyncCountedNetwork:
    """The same, awaited."""

    def __init__(self, backend: Any, traffic: Traffic) -> None:
        self._backend = backend
        self._traffic = traffic

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> _AsyncCounted:
        return _AsyncCounted(await self._backend.connect_tcp(*args, **kwargs), self._traffic)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _AsyncCounted:
    def __init__(self, inner: Any, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        chunk: bytes = await self._inner.read(max_bytes, timeout)
        self._traffic.add(received=len(chunk))
        return chunk

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            await self._inner.write(buffer, timeout)
            self._traffic.add(sent=len(buffer))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _AsyncSecured:
        secured = _AsyncSecured(self, TlsSession(ssl_context, server_hostname))
        await secured.shake_hands(timeout)
        return secured

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _AsyncSecured:
    def __init__(self, inner: Any, session: TlsSession) -> None:
        self._inner = inner
        self._session = session

    async def shake_hands(self, timeout: float | None) -> None:
        try:
            await self._obey(self._session.handshake(), timeout)
        except ssl.SSLError as error:
            await self.aclose()
            raise HandshakeError(str(error)) from error

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._obey(self._session.read(max_bytes), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._obey(self._session.write(buffer), timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _AsyncSecured:
        secured = _AsyncSecured(self, TlsSession(ssl_context, server_hostname))
        await secured.shake_hands(timeout)
        return secured

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._session.ssl_object
        return self._inner.get_extra_info(info)

    async def _obey(self, steps: Steps[T], timeout: float | None) -> T:
        received: bytes | None = None
        while True:
            try:
                wanted = next(steps) if received is None else steps.send(received)
            except StopIteration as done:
                value: T = done.value
                return value
            received = b""
            if wanted is None:
                received = await self._inner.read(_RECORD_BYTES, timeout)
            else:
                await self._inner.write(wanted, timeout)
