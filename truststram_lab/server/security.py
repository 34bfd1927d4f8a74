"""The guard at the root: which host, who, and may they. No route can forget it.

A path that no rule names needs ``platform:administer``, which only owners have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from truststram_lab.exceptions import (
    AuthenticationError,
    PayloadTooLargeError,
    PermissionDeniedError,
)

from .services.accounts import AccountsService, Principal
from .settings import BLOB_LIMIT_BYTES, JSON_LIMIT_BYTES, Network

__all__ = ["OPEN_DOORS", "STANDING_DOORS", "Forwarded", "Guard", "is_streamed", "scope_for"]

#: what needs no credential at all, as (method, path)
OPEN_DOORS = frozenset(
    {
        ("GET", "/health"),
        ("HEAD", "/health"),
        # these check a token of their own, which opens no other door
        ("POST", "/api/v1/device-auth/bootstrap"),
        ("POST", "/api/v1/device-auth/refresh"),
        ("POST", "/api/v1/device-auth/revoke"),
    }
)

#: and on a standing platform, besides
STANDING_DOORS = frozenset({("GET", "/ready"), ("POST", "/api/v1/setup")})

#: the largest body of a request without a credential, in bytes
_OPEN_LIMIT_BYTES = 10_000

#: characters of a path up to which its rule is remembered
_KNOWN_PATH = 300

#: bodies that are streamed to disk, as (method, path)
_STREAMED = re.compile(
    r"PUT /api/v1/(blobs/[^/]+|uploads/[^/]+|"
    r"training/rounds/[^/]+/update|training/personalized/[^/]+)"
)

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(f"(?:{methods}) /api/v1/{path}"), scope)
    for methods, path, scope in (
        ("GET|HEAD", "whoami", "identity:read"),
        ("GET|HEAD", "openapi.json", "identity:read"),
        ("GET|HEAD", "blobs/.+", "blobs:read"),
        ("PUT", "blobs/.+", "blobs:write"),
        ("GET|HEAD|PUT", "uploads/.+", "blobs:write"),
        ("GET|HEAD", "models/.+/download", "blobs:read"),
        ("GET|HEAD", "models(/.*)?", "models:read"),
        ("POST|PUT|DELETE", "models(/.*)?", "models:write"),
        ("GET|HEAD", "deployments(/.*)?", "deployments:read"),
        ("POST|DELETE", "deployments(/.*)?", "deployments:write"),
        ("POST", "endpoints/.+/predict", "predictions:write"),
        ("GET|HEAD", "predictions(/.*)?", "predictions:read"),
        ("GET|HEAD", "federations/[^/]+/privacy", "privacy:read"),
        ("GET|HEAD", "federations(/.*)?", "federations:read"),
        ("POST|PUT", "federations(/.*)?", "federations:write"),
        ("POST", "devices/register", "training:participate"),
        ("GET|HEAD|PUT", "training/.*", "training:participate"),
        ("POST", "training/rounds/[^/]+/state", "training:participate"),
        ("GET|HEAD", "runs(/.*)?", "runs:read"),
        ("POST|PUT", "runs(/.*)?", "runs:write"),
        ("GET|HEAD", "events", "events:read"),
    )
)


def scope_for(
    method: str, path: str, open_doors: Collection[tuple[str, str]] = OPEN_DOORS
) -> str | None:
    """The scope that a request needs; None needs no credential at all."""
    return None if (method, path) in open_doors else _door(method, path)[0]


def is_streamed(method: str, path: str) -> bool:
    """Whether the body of such a request goes to disk as it comes."""
    return _door(method, path)[1]


def _door(method: str, path: str) -> tuple[str, bool]:
    """The scope that a request needs, and whether its body is streamed."""
    # Anybody may ask for a path that is long, and nobody asks for one twice.
    return _known_door(method, path) if len(path) <= _KNOWN_PATH else _find_door(method, path)


@lru_cache(2048)
def _known_door(method: str, path: str) -> tuple[str, bool]:
    return _find_door(method, path)


def _find_door(method: str, path: str) -> tuple[str, bool]:
    place = f"{method} {path}"
    streamed = _STREAMED.fullmatch(place) is not None
    for pattern, scope in _RULES:
        if pattern.fullmatch(place):
            return scope, streamed
    return "platform:administer", streamed


class Forwarded:
    """Behind a proxy: takes scheme, host and caller from its headers, and from nobody else's.

    A request that does not come from a proxy was not encrypted on its way here, so it is
    refused, and so is one that the proxy itself got in the clear.

    Args:
        proxies: the networks in which proxies are.
        scheme: of the public address.
    """

    def __init__(self, app: ASGIApp, proxies: Collection[Network], scheme: str) -> None:
        self._app = app
        self._proxies = tuple(proxies)
        self._scheme = scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else ""
        if not self._trusts(peer):
            raise PermissionDeniedError(
                f"This platform is reached through its proxy, and {peer!r} is none of its proxies; "
                "start it with --trusted-proxy if it should be."
            )
        headers = Headers(scope=scope)
        # A chain of proxies appends: the last word is that of the one we trust.
        if (_words(headers, "x-forwarded-proto") or [self._scheme])[-1].lower() != self._scheme:
            raise PermissionDeniedError(
                f"The request reached the proxy unencrypted; use {self._scheme}."
            )
        scope = {**scope, "scheme": self._scheme, "headers": list(scope["headers"])}
        host = _words(headers, "x-forwarded-host")
        if host:
            MutableHeaders(scope=scope)["host"] = host[-1]
        callers = [one for one in _words(headers, "x-forwarded-for") if not self._trusts(one)]
        if callers:
            scope["client"] = callers[-1], 0
        await self._app(scope, receive, send)

    def _trusts(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None) or found
        return any(mapped in network for network in self._proxies)


def _words(headers: Headers, name: str) -> list[str]:
    found = ",".join(headers.getlist(name)).split(",")
    return [word.strip() for word in found if word.strip()]


class Guard:
    """Checks host, origin, credential, scope and size, in this order, before any route.

    Args:
        hosts: the ``Host`` values under which the platform is reached. A page of another
            site that resolves its own name to this computer sends another one.
        scheme: with which it is reached.
        open_doors: what needs no credential, as (method, path).
    """

    def __init__(
        self,
        app: ASGIApp,
        accounts: AccountsService,
        hosts: Collection[str],
        *,
        scheme: str = "http",
        open_doors: Collection[tuple[str, str]] = OPEN_DOORS,
    ) -> None:
        self._app = app
        self._accounts = accounts
        self._hosts = frozenset(hosts)
        self._reached_as = next(iter(hosts))
        self._origins = frozenset(f"{scheme}://{host}" for host in hosts)
        self._open_doors = frozenset(open_doors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Of a header that comes twice the first counts, as everywhere.
        headers = dict(reversed(scope["headers"]))
        self._check_origin(headers)
        needed = scope_for(scope["method"], scope["path"], self._open_doors)
        if needed is not None:
            principal = await self._principal(headers)
            scope["state"]["principal"] = principal
            if needed not in principal.scopes:
                raise PermissionDeniedError(
                    f"The role {principal.role!r} of {principal.name!r} does not allow "
                    f"{scope['method']} {scope['path']}, which needs {needed!r}."
                )
        else:
            # Answers are kept for their principal, and here there is none.
            kept = [pair for pair in scope["headers"] if pair[0].lower() != b"idempotency-key"]
            scope = {**scope, "headers": kept}
        limited = _limited(scope, headers, receive, open_door=needed is None)
        await self._app(scope, limited, send)

    def _check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if host.lower() not in self._hosts:
            raise PermissionDeniedError(
                f"Host {host!r} is not this platform's; it is reached as {self._reached_as}."
            )
        given = headers.get(b"origin")
        origin = None if given is None else given.decode("latin-1")
        if origin is not None and origin.lower() not in self._origins:
            raise PermissionDeniedError(
                f"Pages of {origin!r} may not use this platform; go through Jupyter's proxy."
            )

    async def _principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise AuthenticationError(
                "The request has no credential; send Authorization: Bearer <token>."
            )
        found = self._accounts.trusted(token)
        if found is None:
            found = await run_in_threadpool(self._accounts.authenticate, token)
        return found


def _limited(
    scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, *, open_door: bool
) -> Receive:
    """``receive`` that refuses a body over the limit, declared or not."""
    limit = BLOB_LIMIT_BYTES if is_streamed(scope["method"], scope["path"]) else JSON_LIMIT_BYTES
    if open_door:
        limit = _OPEN_LIMIT_BYTES
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit() or len(declared) > 18:
        raise _too_large(limit)
    if int(declared) > limit:
        raise _too_large(limit)
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return limited


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"The body is larger than the {limit:,} bytes that this address takes; send less at once."
    )
