"""One HTTP/1.1 connection, whose large bodies come straight from the socket.

The HTTP library's own connection hands each 64 kB of a body through its parser, which costs
more than moving the bytes. This one lets the parser read the head, and a body whose length is
declared needs no parser. Pools, routes through a proxy and the sockets stay the library's.
"""

from __future__ import annotations

import contextlib
import io
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import h11
import httpcore
import httpx

__all__ = ["DirectPool", "whole_body"]

_HEAD_BYTES = 100 * 1024
_READ_BYTES = 2**16
_BODY_READ_BYTES = 2**19
#: room that is made for a body because its answer says how large it is
_BELIEVED_BYTES = 2**26


def whole_body(answer: httpx.Response) -> bytes:
    """The body, gathered where it stays: joined from pieces, a model would take twice its size."""
    declared = answer.headers.get("content-length", "0")
    size = int(declared) if declared.isascii() and declared.isdigit() else 0
    body = io.BytesIO(bytes(min(size, _BELIEVED_BYTES)))
    for piece in answer.iter_bytes():
        body.write(piece)
    body.truncate()
    return body.getvalue()


class DirectPool(httpcore.ConnectionPool):
    """The library's pool, of connections that reach the platform without a proxy."""

    def __init__(
        self,
        *,
        network_backend: Any,
        keepalive_expiry: float,
        ssl_context: ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            network_backend=network_backend, keepalive_expiry=keepalive_expiry, **options
        )
        self._make = network_backend, keepalive_expiry, ssl_context

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        """A connection that is opened by its first request."""
        return _Connection(origin, *self._make)


class _Connection(httpcore.ConnectionInterface):
    def __init__(
        self,
        origin: httpcore.Origin,
        network: Any,
        keep_s: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._origin = origin
        self._network = network
        self._keep_s = keep_s
        self._ssl_context = ssl_context
        self._stream: Any = None
        self._lock = threading.Lock()
        self._state = "new"
        self._idle_since_s = 0.0

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send the request and read the answer's head."""
        with self._lock:
            if self._state not in ("new", "idle"):
                raise httpcore.ConnectionNotAvailable
            self._state = "active"
        timeouts = request.extensions.get("timeout", {})
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        try:
            if self._stream is None:
                self._stream = self._connect(timeouts.get("connect"))
            # A server may refuse a body before all of it was sent; its answer says why.
            with contextlib.suppress(httpcore.WriteError):
                self._send(parser, request, timeouts.get("write"))
            body = _Body(self, parser, timeouts.get("read"))
            head = body.head()
            body.describe(request.method, head)
        except BaseException:
            self.close()
            raise
        return httpcore.Response(
            status=head.status_code,
            headers=head.headers.raw_items(),
            content=body,
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason},
        )

    def _connect(self, timeout: float | None) -> Any:
        host = self._origin.host.decode("ascii")
        stream = self._network.connect_tcp(
            host=host, port=self._origin.port, local_address=None, timeout=timeout
        )
        if self._origin.scheme == b"https":
            assert self._ssl_context is not None
            self._ssl_context.set_alpn_protocols(["http/1.1"])
            stream = stream.start_tls(self._ssl_context, host, timeout)
        return stream

    def _send(
        self, parser: h11.Connection, request: httpcore.Request, timeout: float | None
    ) -> None:
        try:
            head = h11.Request(
                method=request.method, target=request.url.target, headers=request.headers
            )
            self._stream.write(parser.send(head), timeout)
            for piece in cast(Iterable[bytes], request.stream):
                self._stream.write(parser.send(h11.Data(data=piece)), timeout)
            self._stream.write(parser.send(h11.EndOfMessage()), timeout)
        except h11.LocalProtocolError as error:
            raise httpcore.LocalProtocolError(str(error)) from error

    def read(self, most: int, timeout: float | None) -> bytes:
        received: bytes = self._stream.read(most, timeout)
        return received

    def release(self, *, again: bool) -> None:
        """The answer is over: the connection is kept for another, or closed."""
        if self._state != "active":
            return
        if again:
            self._idle_since_s = time.monotonic()
            self._state = "idle"
        else:
            self.close()

    def close(self) -> None:
        self._state = "closed"
        if self._stream is not None:
            self._stream.close()

    def info(self) -> str:
        return f"HTTP/1.1, {self._state}"

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return self._state == "idle"

    def has_expired(self) -> bool:
        if self._state != "idle":
            return False
        # What can be read from an idle connection is its end.
        old = time.monotonic() > self._idle_since_s + self._keep_s
        return old or bool(self._stream.get_extra_info("is_readable"))

    def is_idle(self) -> bool:
        return self._state == "idle"

    def is_closed(self) -> bool:
        return self._state == "closed"


class _Body:
    """An answer as it is read: the head by the parser, and then the body."""

    def __init__(self, connection: _Connection, parser: h11.Connection, timeout: float | None):
        self._connection = connection
        self._parser = parser
        self._timeout = timeout
        self._first = b""
        #: bytes that are still to come; None if only the parser can tell
        self._left: int | None = None
        self._again = False

    def head(self) -> h11.Response:
        while not isinstance(event := self._event(), h11.Response):
            pass
        return event

    def describe(self, method: bytes, head: h11.Response) -> None:
        """Find out whether the body's length is known."""
        fields = dict(head.headers)
        bodiless = method == b"HEAD" or head.status_code in (204, 304)
        if bodiless or b"transfer-encoding" in fields or b"content-length" not in fields:
            return
        self._left = int(fields[b"content-length"])  # the parser has checked it
        self._first, _ = self._parser.trailing_data
        kept = b"close" not in fields.get(b"connection", b"").lower()
        self._again = kept and head.http_version == b"1.1" and len(self._first) <= self._left
        if self._parser.our_state is not h11.DONE:
            self._again = False  # the request was cut short

    def __iter__(self) -> Iterator[bytes]:
        if self._left is None:
            yield from self._parsed()
            return
        piece = self._first[: self._left]
        while True:
            if piece:
                self._left -= len(piece)
                yield piece
            if not self._left:
                return
            most = min(self._left, _BODY_READ_BYTES)
            piece = self._connection.read(most, self._timeout)
            if not piece:
                raise httpcore.RemoteProtocolError(
                    f"the connection ended {self._left} bytes before the body did"
                )

    def _parsed(self) -> Iterator[bytes]:
        while True:
            event = self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
                done = self._parser.our_state, self._parser.their_state
                self._left, self._again = 0, done == (h11.DONE, h11.DONE)
                return

    def _event(self) -> Any:
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                raise httpcore.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            received = self._connection.read(_READ_BYTES, self._timeout)
            if not received and self._parser.their_state is h11.SEND_RESPONSE:
                raise httpcore.RemoteProtocolError("Server disconnected without an answer")
            self._parser.receive_data(received)

    def close(self) -> None:
        self._connection.release(again=self._again and self._left == 0)
