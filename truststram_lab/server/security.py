"""The guard at the root: which host, who, and may they. No route can forget it.

A path that no rule names needs ``platform:administer``, which only owners have.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from truststram_lab.exceptions import (
    AuthenticationError,
    PayloadTooLargeError,
    PermissionDeniedError,
)

from .services.accounts import AccountsService, Principal
from .settings import BLOB_LIMIT_BYTES, JSON_LIMIT_BYTES

__all__ = ["STREAMED", "Guard", "scope_for"]

#: bodies that are streamed to disk, as (method, path)
STREAMED = re.compile(r"PUT /api/v1/(blobs/[^/]+|training/rounds/[^/]+/update)")

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(f"(?:{methods}) /api/v1/{path}"), scope)
    for methods, path, scope in (
        ("GET|HEAD", "whoami", "identity:read"),
        ("GET|HEAD", "openapi.json", "identity:read"),
        ("GET|HEAD", "blobs/.+", "blobs:read"),
        ("PUT", "blobs/.+", "blobs:write"),
        ("GET|HEAD", "models/.+/download", "blobs:read"),
        ("GET|HEAD", "models(/.*)?", "models:read"),
        ("POST", "models(/.*)?", "models:write"),
        ("GET|HEAD", "deployments(/.*)?", "deployments:read"),
        ("POST|DELETE", "deployments(/.*)?", "deployments:write"),
        ("POST", "endpoints/.+/predict", "predictions:write"),
        ("GET|HEAD", "federations(/.*)?", "federations:read"),
        ("POST", "federations(/.*)?", "federations:write"),
        ("POST", "devices/register", "training:participate"),
        ("GET|HEAD|PUT", "training/.*", "training:participate"),
        ("GET|HEAD", "runs(/.*)?", "runs:read"),
        ("POST|PUT", "runs(/.*)?", "runs:write"),
        ("GET|HEAD", "events", "events:read"),
    )
)


def scope_for(method: str, path: str) -> str | None:
    """The scope that a request needs; None needs no credential at all."""
    if path == "/health" and method in ("GET", "HEAD"):
        return None
    for pattern, scope in _RULES:
        if pattern.fullmatch(f"{method} {path}"):
            return scope
    return "platform:administer"


class Guard:
    """Checks host, origin, credential, scope and size, in this order, before any route.

    Args:
        hosts: the ``Host`` values under which the platform is reached. A page of another
            site that resolves its own name to this computer sends another one.
    """

    def __init__(self, app: ASGIApp, accounts: AccountsService, hosts: Collection[str]) -> None:
        self._app = app
        self._accounts = accounts
        self._hosts = frozenset(hosts)
        self._origins = frozenset(f"http://{host}" for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        self._check_origin(headers)
        needed = scope_for(scope["method"], scope["path"])
        if needed is not None:
            principal = await self._principal(headers)
            scope["state"]["principal"] = principal
            if needed not in principal.scopes:
                raise PermissionDeniedError(
                    f"The role {principal.role!r} of {principal.name!r} does not allow "
                    f"{scope['method']} {scope['path']}, which needs {needed!r}."
                )
        await self._app(scope, _limited(scope, headers, receive), send)

    def _check_origin(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if host.lower() not in self._hosts:
            raise PermissionDeniedError(
                f"Host {host!r} is not this platform's; it is reached as {min(self._hosts)}."
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


def _limited(scope: Scope, headers: Headers, receive: Receive) -> Receive:
    """``receive`` that refuses a body over the limit, declared or not."""
    streamed = STREAMED.fullmatch(f"{scope['method']} {scope['path']}")
    limit = BLOB_LIMIT_BYTES if streamed else JSON_LIMIT_BYTES
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
