"""Bytes between the browser and the platform, both ways as they come, never kept.

The browser's credentials stay with Jupyter and the platform's stay here: of a request's and an
answer's headers only the named ones are passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import quote, unquote_plus

import httpx
from jupyter_core.utils import ensure_async
from jupyter_server.auth.utils import HTTP_METHOD_TO_AUTH_ACTION
from jupyter_server.base.handlers import APIHandler
from tornado import web
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError

from truststram_lab.exceptions import (
    InsufficientResourcesError,
    NotFoundError,
    PermissionDeniedError,
    PlatformUnavailableError,
    RequestTimeoutError,
    TrustStramException,
)
from truststram_lab.transport import Target
from truststram_lab.transport.engine import USER_AGENT, untrusted
from truststram_lab.transport.sockets import tls_context

from .place import SandboxStoppedError, find

__all__ = ["ProxyHandler", "Upstream", "api_path"]

_API = "/api/v1/"
_EVENTS = "/api/v1/events"
_READ_METHODS = ("GET", "HEAD")

#: What the platform may know of a request, and the browser of an answer.
_ASKED = (
    "Accept", "Content-Digest", "Content-Length", "Content-Type", "Idempotency-Key", "If-Match",
    "If-None-Match", "Last-Event-ID", "Range",
)  # fmt: skip
_ANSWERED = (
    "Allow", "Cache-Control", "Content-Digest", "Content-Disposition", "Content-Encoding",
    "Content-Length", "Content-Range", "Content-Type", "ETag", "Retry-After", "X-Accel-Buffering",
)  # fmt: skip

#: Query parameters that are Jupyter's: its token, and the number its front end adds to
#: get past a browser's cache.
_JUPYTERS = re.compile(r"(token|_xsrf|no_track_activity)=.*|[0-9]+=?")

#: The platform has limits of its own; this only says that Jupyter's does not count.
_MOST_BYTES = 2**40
#: An open stream says something at least every 10 s; a prediction takes less than this.
_TIMEOUT = httpx.Timeout(120.0, connect=5.0, pool=5.0)
_LOOK = httpx.Timeout(5.0)
#: Says that nobody is at work: the sandbox may end of idleness under a panel that is open.
_PASSIVE = {"Truststram-Passive": "1"}
_LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=8, keepalive_expiry=60.0)


class Upstream:
    """Connections to the platform from Jupyter's event loop; opened on first use."""

    def __init__(self) -> None:
        #: by scheme: what vouches for a certificate is read only where there is one
        self._http: dict[str, httpx.AsyncClient] = {}

    async def read(self, target: Target, path: str) -> bytes:
        """A small answer of the platform; raises TrustStramException for any but a success."""
        answer = await self._send(target, _request(target, "GET", path, _PASSIVE, None, _LOOK))
        async with contextlib.aclosing(answer):
            body = await _whole(answer, target)
        if answer.status_code == 200:
            return body
        try:
            problem = json.loads(body)
        except ValueError:
            problem = None
        found = problem if isinstance(problem, dict) else {}
        raise TrustStramException.from_problem(found, answer.status_code)

    async def ask(
        self, method: str, path: str, headers: dict[str, str], body: _Body | None
    ) -> httpx.Response:
        """The platform's answer, of which only the headers were read; to be closed.

        The platform is looked up each time. A reading request that meets a connection which
        the platform has just closed is sent once more.

        Raises:
            TrustStramException: there is none, or it went away before it answered.
        """
        repeatable = body is None and method in _READ_METHODS
        while True:
            target = (await asyncio.to_thread(find)).target
            try:
                return await self._send(
                    target, _request(target, method, path, headers, body, _TIMEOUT)
                )
            except _Gone:
                if not repeatable:
                    raise
                repeatable = False

    async def _send(self, target: Target, request: httpx.Request) -> httpx.Response:
        scheme = request.url.scheme
        if scheme not in self._http:
            trusted = tls_context(httpx.create_ssl_context) if scheme == "https" else True
            self._http[scheme] = httpx.AsyncClient(verify=trusted, trust_env=False, limits=_LIMITS)
        try:
            return await self._http[scheme].send(request, stream=True)
        except httpx.PoolTimeout as error:
            raise InsufficientResourcesError(
                "Too many streams of this Jupyter server are open; close some of its browser tabs."
            ) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise PlatformUnavailableError(
                untrusted(target.base_url, str(error))
                or f"Nobody answers at {target.base_url}; start the platform, or try again."
            ) from error
        except httpx.TimeoutException as error:
            raise _too_slow(target) from error
        except httpx.TransportError as error:
            raise _Gone(
                f"The platform at {target.base_url} went away before it answered; try again."
            ) from error


class _Gone(PlatformUnavailableError):
    """The connection ended before there was an answer."""


class _Body:
    """A request's body on its way; at most three pieces of it are here at a time."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(2)
        self._unwanted = False

    async def put(self, piece: bytes) -> None:
        """Wait until there is room for ``piece``; empty is the end."""
        if not self._unwanted:
            await self._pieces.put(piece)

    def drop(self) -> None:
        """Nobody reads any more: what comes is thrown away."""
        self._unwanted = True
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._pieces.get():
            yield piece


def api_path(path: str) -> str:
    """The quoted path on the platform for a path that was decoded once.

    It is quoted again as it is, so that the platform decodes the same text: what was encoded
    twice stays a name with a percent sign in it.

    Raises:
        NotFoundError: not under ``/api/v1/``, or it could be read as another path.
    """
    parts = path.split("/")
    plain = path.startswith(_API) and path.isprintable() and "\\" not in path
    if not plain or any(part in ("", ".", "..") for part in parts[1:]):
        raise NotFoundError(
            f"{path!r} is not passed on; only the platform's API under {_API} is.", name=path
        )
    return quote(path, safe="/:@!$&'()*+,;=~")


def _query(query: str) -> str:
    kept = [part for part in query.split("&") if not _JUPYTERS.fullmatch(unquote_plus(part))]
    return "&".join(kept)


def _request(
    target: Target,
    method: str,
    path: str,
    headers: dict[str, str],
    body: _Body | None,
    timeout: httpx.Timeout,
) -> httpx.Request:
    own = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if target.token is not None:
        own["Authorization"] = f"Bearer {target.token}"
    try:
        url = httpx.URL(f"{target.base_url}{path}")
    except httpx.InvalidURL as error:
        raise NotFoundError(
            f"{path[:200]!r} is not an address of the platform; shorten it.", name=path[:200]
        ) from error
    return httpx.Request(
        method,
        url,
        headers={**headers, **own},
        content=body,
        extensions={"timeout": timeout.as_dict()},
    )


async def _whole(answer: httpx.Response, target: Target) -> bytes:
    try:
        return await answer.aread()
    except httpx.TimeoutException as error:
        raise _too_slow(target) from error
    except httpx.TransportError as error:
        raise _Gone(f"The platform at {target.base_url} went away; try again.") from error


def _too_slow(target: Target) -> RequestTimeoutError:
    return RequestTimeoutError(f"The platform at {target.base_url} does not answer in time.")


@web.stream_request_body
class ProxyHandler(APIHandler):
    """``truststram/platform/api/v1/...``: the platform's API under Jupyter's base URL."""

    auth_resource = "truststram"
    _work: asyncio.Task[None] | None = None
    _body: _Body | None = None

    def initialize(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._received = asyncio.Event()

    # As in Jupyter's APIHandler: the parameter of JupyterHandler's is for pages, not for an API.
    async def prepare(self) -> None:  # type: ignore[override]
        """Admit the request, and ask the platform while the body still comes in."""
        await super().prepare()
        if self.request.method == "OPTIONS":
            return
        await self._check_authorized()
        # A panel that looks and listens is nobody at work: the server may still be culled.
        self._track_activity = self.request.method not in _READ_METHODS
        if _has_body(self.request):
            # Read before this method returns, this would be Jupyter's limit for uploads.
            connection = self.request.connection
            # Only the HTTP/1 one has the limit, and a Jupyter server speaks nothing else.
            assert isinstance(connection, HTTP1Connection)
            connection.set_max_body_size(_MOST_BYTES)
            self._body = _Body()
        self._work = asyncio.ensure_future(self._exchange())
        self._work.add_done_callback(self._drop_body)

    def _drop_body(self, _: asyncio.Task[None]) -> None:
        if self._body is not None:
            self._body.drop()

    async def _check_authorized(self) -> None:
        # By default Jupyter looks at the user only when a method is called, and by then the
        # platform would have been asked.
        if not self.current_user:
            raise web.HTTPError(403)
        # Not the decorator: it remembers the first request's action for all methods.
        action = HTTP_METHOD_TO_AUTH_ACTION[str(self.request.method)]
        allowed = self.authorizer.is_authorized(self, self.current_user, action, self.auth_resource)
        if not await ensure_async(allowed):
            raise web.HTTPError(403, f"This user may not {action} {self.auth_resource}.")

    async def data_received(self, chunk: bytes) -> None:
        """Pass a piece of the body on; the browser waits while the platform is busy."""
        if self._body is not None:
            await self._body.put(chunk)

    def write_error(self, status_code: int, **kwargs: object) -> None:
        """Jupyter's own refusal; the body was not read, so the connection is of no more use."""
        self.set_header("Connection", "close")
        super().write_error(status_code, **kwargs)

    def on_connection_close(self) -> None:
        """The browser left: so does the request to the platform."""
        if self._work is not None:
            self._work.cancel()

    async def _finish_exchange(self, _path: str | None = None) -> None:
        assert self._work is not None  # prepare() set it
        if self._body is not None:
            await self._body.put(b"")
        self._received.set()
        await asyncio.wait({self._work})
        if not self._work.cancelled():
            self._work.result()

    async def _exchange(self) -> None:
        try:
            path = api_path(self.path_args[0] or "/")
            query = _query(self.request.query)
            headers = {name: value for name in _ASKED if (value := self.request.headers.get(name))}
            target = f"{path}?{query}" if query else path
            method = str(self.request.method)
            if path == _EVENTS:
                headers |= _PASSIVE
            answer = await self._upstream.ask(method, target, headers, self._body)
            async with contextlib.aclosing(answer):
                await self._received.wait()
                await self._relay(answer)
        except TrustStramException as error:
            await self._received.wait()
            self._refuse(error)
        except StreamClosedError:
            return  # nobody is left to answer

    async def _relay(self, answer: httpx.Response) -> None:
        kind = answer.headers.get("Content-Type", "application/octet-stream")
        self.set_status(answer.status_code)
        for name in _ANSWERED:
            if name in answer.headers:
                self.set_header(name, answer.headers[name])
        await self.flush()
        try:
            async for piece in answer.aiter_raw():
                self.write(piece)
                await self.flush()
        except httpx.TransportError as error:
            self.log.warning("The platform went away during an answer (%s).", type(error).__name__)
            if not kind.startswith("text/event-stream"):
                # A shortened file must not look whole: the connection ends without an end.
                self.detach().close()
                return
        # A stream that ends is what its readers resume from.
        self.finish(set_content_type=kind)

    def _refuse(self, error: TrustStramException) -> None:
        self.set_status(_status_of(error))
        self.set_header("Cache-Control", "no-store")
        document = {**error.to_problem(), "status": self.get_status()}
        self.finish(json.dumps(document), set_content_type="application/problem+json")

    @web.authenticated
    async def get(self, path: str | None = None) -> None:
        """Pass on a GET."""
        await self._finish_exchange(path)

    @web.authenticated
    async def head(self, path: str | None = None) -> None:
        """Pass on a HEAD."""
        await self._finish_exchange(path)

    @web.authenticated
    async def post(self, path: str | None = None) -> None:
        """Pass on a POST."""
        await self._finish_exchange(path)

    @web.authenticated
    async def put(self, path: str | None = None) -> None:
        """Pass on a PUT."""
        await self._finish_exchange(path)

    @web.authenticated
    async def patch(self, path: str | None = None) -> None:
        """Pass on a PATCH."""
        await self._finish_exchange(path)

    @web.authenticated
    async def delete(self, path: str | None = None) -> None:
        """Pass on a DELETE."""
        await self._finish_exchange(path)


def _has_body(request: HTTPServerRequest) -> bool:
    return "Transfer-Encoding" in request.headers or request.headers.get(
        "Content-Length", "0"
    ) not in ("", "0")


def _status_of(error: TrustStramException) -> int:
    """The gateway's status (RFC 9110, section 15.6): 502 broken, 503 not there, 504 too slow.

    A 401 of Jupyter's credential would look like the browser's.
    """
    if isinstance(error, RequestTimeoutError):
        return 504
    if isinstance(error, (SandboxStoppedError, InsufficientResourcesError)):
        return 503
    if isinstance(error, PlatformUnavailableError):
        return 502
    if isinstance(error, (NotFoundError, PermissionDeniedError)):
        return error.status
    return 503
