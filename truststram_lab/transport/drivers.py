"""The two drivers: they obey the engine, with httpx over sockets whose bytes are counted.

Only this file and ``connections`` know the HTTP library. Each class is followed by its async
twin.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Self, TypeVar, cast

import httpcore
import httpx

from truststram_lab.exceptions import PlatformUnavailableError

from .calls import Call, Response
from .connections import DirectPool, whole_body
from .engine import Engine, Exchange, Failure, Request, Resolve, RetryPolicy, Wait
from .sockets import AsyncCountedNetwork, CountedNetwork, HandshakeError, proxy_for, tls_context
from .targets import TargetProvider, Targets
from .traffic import Traffic

__all__ = ["AsyncHttpDriver", "AsyncLiveBody", "HttpDriver", "LiveBody"]

T = TypeVar("T")

_CONNECT_S = 5.0
_WRITE_S = 60.0
_CONNECTIONS = 32
_KEEP_S = 60.0

_NOT_SENT = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    HandshakeError,
)
_BROKEN = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    ssl.SSLError,
    *_NOT_SENT,
)


class _Driver:
    """What both drivers are made of.

    Args:
        target: where the platform is; a provider is asked again when it does not answer.
        policy: attempts and pauses.
        traffic: where to count; a new counter by default.
    """

    def __init__(
        self,
        target: TargetProvider,
        *,
        policy: RetryPolicy | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.targets = target if isinstance(target, Targets) else Targets(target)
        self.traffic = traffic or Traffic()
        self._engine = Engine(policy)
        self._closed = threading.Event()
        self._siblings: weakref.WeakSet[Self] = weakref.WeakSet()
        self._renew()

    def _renew(self) -> None:
        """Start with no connection."""

    def sibling(self) -> Self:
        """A driver to the same platform, counted with this one, closed alone or with it."""
        made = type(self)(self.targets, policy=self._engine.policy, traffic=self.traffic)
        self._siblings.add(made)
        if self.closed:
            made._closed.set()
        return made

    @property
    def closed(self) -> bool:
        """Whether the driver was closed; it stays so."""
        return self._closed.is_set()


class HttpDriver(_Driver):
    """Sends calls from any thread over kept connections."""

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._transport = _Transport(self.traffic)
        self._http = httpx.Client(transport=self._transport, trust_env=False)
        # A driver that nobody closed gives its sockets back all the same.
        self._finalizer = weakref.finalize(self, self._http.close)

    def send(self, call: Call[T]) -> T:
        """Make the call and return its value; raises TrustStramException."""
        return self._run(self._engine.run(call), [])

    def open(self, call: Call[Response]) -> LiveBody:
        """Make the call and leave the answer's body to be read as it comes."""
        opened: list[LiveBody] = []
        try:
            self._run(self._engine.run(call, live=True), opened)
        except BaseException:
            for body in opened:
                body.close()
            raise
        return opened[-1]

    def close(self) -> None:
        """End every connection now, also under calls that wait in other threads."""
        self._closed.set()
        self._transport.network.abort()
        self._finalizer()
        for sibling in list(self._siblings):
            sibling.close()

    def pause(self, seconds: float) -> None:
        """Wait, or until the driver is closed."""
        self._closed.wait(seconds)

    def _run(self, steps: Exchange[T], opened: list[LiveBody]) -> T:
        result: Any = None
        while True:
            if self.closed:
                raise _closed()
            try:
                step = steps.send(result)
            except StopIteration as done:
                return cast(T, done.value)
            if isinstance(step, Resolve):
                stale = step.stale
                result = self.targets.current() if stale is None else self.targets.after(stale)
            elif isinstance(step, Wait):
                result = self._closed.wait(step.seconds)
            else:
                result = self._exchange(step, opened)

    def _exchange(self, request: Request, opened: list[LiveBody]) -> Response | Failure:
        if self._pid != os.getpid():
            # The sockets of a forked kernel belong to its parent.
            self._finalizer.detach()
            self._renew()
        try:
            answer = self._http.send(_outgoing(self._http, request), stream=True)
            if request.live and answer.status_code == 200:
                opened.append(LiveBody(answer))
                return _response(answer, b"")
            with contextlib.closing(answer):
                return _response(answer, whole_body(answer))
        except _BROKEN as error:
            return _failure(error)


class AsyncHttpDriver(_Driver):
    """The same on the running event loop; finding the platform happens on a thread."""

    _loop: asyncio.AbstractEventLoop | None = None
    _http: httpx.AsyncClient | None = None

    async def asend(self, call: Call[T]) -> T:
        """Make the call and return its value; raises TrustStramException."""
        return await self._run(self._engine.run(call), [])

    async def open(self, call: Call[Response]) -> AsyncLiveBody:
        """Make the call and leave the answer's body to be read as it comes."""
        opened: list[AsyncLiveBody] = []
        try:
            await self._run(self._engine.run(call, live=True), opened)
        except BaseException:
            for body in opened:
                await body.aclose()
            raise
        return opened[-1]

    async def aclose(self) -> None:
        """End every connection."""
        self._closed.set()
        if self._http is not None:
            await self._http.aclose()
        for sibling in list(self._siblings):
            await sibling.aclose()

    async def _run(self, steps: Exchange[T], opened: list[AsyncLiveBody]) -> T:
        result: Any = None
        while True:
            if self.closed:
                raise _closed()
            try:
                step = steps.send(result)
            except StopIteration as done:
                return cast(T, done.value)
            if isinstance(step, Resolve) and step.stale is not None:
                result = await asyncio.to_thread(self.targets.after, step.stale)
            elif isinstance(step, Resolve):
                result = self.targets.known or await asyncio.to_thread(self.targets.current)
            elif isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                result = None
            else:
                result = await self._exchange(step, opened)

    async def _exchange(self, request: Request, opened: list[AsyncLiveBody]) -> Response | Failure:
        http = self._client()
        try:
            answer = await http.send(_outgoing(http, request), stream=True)
            if request.live and answer.status_code == 200:
                opened.append(AsyncLiveBody(answer))
                return _response(answer, b"")
            async with contextlib.aclosing(answer):
                return _response(answer, await answer.aread())
        except _BROKEN as error:
            return _failure(error)

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            # Connections live and die with the loop that opened them.
            self._loop = loop
            self._http = httpx.AsyncClient(transport=_AsyncTransport(self.traffic), trust_env=False)
        return self._http


class LiveBody:
    """A body read as it comes."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self._chunks = answer.iter_raw()

    def read(self) -> bytes | Failure:
        """The next bytes; empty at the proper end, a failure at any other."""
        try:
            return next(self._chunks, b"")
        except _BROKEN as error:
            return _failure(error)

    def close(self) -> None:
        """Give the connection back."""
        self._answer.close()


class AsyncLiveBody:
    """The same, awaited."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self._chunks = answer.aiter_raw()

    async def read(self) -> bytes | Failure:
        """The next bytes; empty at the proper end, a failure at any other."""
        try:
            return await anext(self._chunks, b"")
        except _BROKEN as error:
            return _failure(error)

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._answer.aclose()


def _outgoing(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    return http.build_request(
        request.method,
        request.url,
        # No compression: what is counted and digested is what was meant.
        headers={**request.headers, "accept-encoding": "identity"},
        content=request.body,
        timeout=httpx.Timeout(
            connect=_CONNECT_S, read=request.timeout_s, write=_WRITE_S, pool=None
        ),
    )


def _response(answer: httpx.Response, body: bytes) -> Response:
    return Response(answer.status_code, dict(answer.headers), body)


def _failure(error: Exception) -> Failure:
    reason = str(error) or type(error).__name__
    if isinstance(error, _NOT_SENT):
        return Failure("connect", reason, sent=False)
    if isinstance(error, httpcore.TimeoutException):
        return Failure("timeout", reason, sent=True)
    return Failure("cut", reason, sent=True)


def _closed() -> PlatformUnavailableError:
    return PlatformUnavailableError("This client is closed; make a new one.")


class _Transport(httpx.BaseTransport):
    """httpx's way to our sockets."""

    def __init__(self, traffic: Traffic) -> None:
        self.network = CountedNetwork(httpcore.SyncBackend(), traffic)
        self._pools: dict[tuple[str, str | None], httpcore.ConnectionPool] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        route = request.url.scheme, proxy_for(str(request.url))
        with self._lock:
            if route not in self._pools:
                kind = httpcore.HTTPProxy if route[1] else DirectPool
                self._pools[route] = kind(**_pool_options(*route, self.network))
        answer = self._pools[route].handle_request(_core(request))
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(cast(Iterable[bytes], answer.stream)),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


class _AsyncTransport(httpx.AsyncBaseTransport):
    def __init__(self, traffic: Traffic) -> None:
        self._network = AsyncCountedNetwork(httpcore.AnyIOBackend(), traffic)
        self._pools: dict[tuple[str, str | None], httpcore.AsyncConnectionPool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        route = request.url.scheme, proxy_for(str(request.url))
        if route not in self._pools:
            kind = httpcore.AsyncHTTPProxy if route[1] else httpcore.AsyncConnectionPool
            self._pools[route] = kind(**_pool_options(*route, self._network))
        answer = await self._pools[route].handle_async_request(_core(request))
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_AsyncBody(answer.stream),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


def _pool_options(scheme: str, proxy: str | None, network: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"network_backend": network, "keepalive_expiry": _KEEP_S}
    options["max_connections"] = options["max_keepalive_connections"] = _CONNECTIONS
    if scheme == "https":
        options["ssl_context"] = tls_context(httpx.create_ssl_context)
    if proxy is not None:
        named = httpx.Proxy(proxy)
        options["proxy_url"] = str(named.url)
        options["proxy_auth"] = named.raw_auth
    return options


def _core(request: httpx.Request) -> httpcore.Request:
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        ),
        headers=request.headers.raw,
        content=cast(Any, request.stream),
        extensions=request.extensions,
    )


class _Body(httpx.SyncByteStream):
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks

    def close(self) -> None:
        cast(Any, self._chunks).close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        await self._chunks.aclose()
