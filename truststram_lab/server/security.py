"""The guard at the root: which host, who, and may they. No route can forget it.

A path that no rule names needs ``platform:administer``, which only owners have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

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

__all__ = ["OPEN_DOORS", "STANDING_DOORS", "STREAMED", "Forwarded", "Guard", "scope_for"]

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

#: bodies that are streamed to disk, as (method, path)
STREAMED = re.compile(
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
    if (method, path) in open_doors:
        return None
    for pattern, scope in _RULES:
        if pattern.fullmatch(f"{method} {path}"):
            return scope
    return "platform:administer"


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
        headers = Headers(scope=scope)
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

    def _check_origin(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if host.lower() not in self._hosts:
            raise PermissionDeniedError(
                f"Host {host!r} is not this platform's; it is reached as {self._reached_as}."
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            raise PermissionDeniedError(
                f"Pages of {origin!r} may not use this platform; go through Jupyter's proxy."
            )

    async def _principal(self, headers: Headers) -> Principal:
        kind, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise AuthenticationError(
                "The request has no credential; send Authorization: Bearer <token>."
            )
        found = self._accounts.trusted(token)
        if found is None:
            found = await run_in_threadpool(self._accounts.authenticate, token)
        return found


def _limited(scope: Scope, headers: Headers, receive: Receive, *, open_door: bool) -> Receive:
    """``receive`` that refuses a body over the limit, declared or not."""
    streamed = STREAMED.fullmatch(f"{scope['method']} {scope['path']}")
    limit = BLOB_LIMIT_BYTES if streamed else JSON_LIMIT_BYTES
    if open_door:
        limit = _OPEN_LIMIT_BYTES
    declared = headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,18}", declared) or int(declared) > limit:
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
