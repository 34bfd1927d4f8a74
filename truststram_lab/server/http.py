"""Answers that are problems (RFC 9457), digests (RFC 9530), and the log of every request."""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from sqlalchemy.exc import IntegrityError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from truststram_lab.exceptions import (
    ConflictError,
    InvalidInputError,
    PlatformError,
    PlatformUnavailableError,
    TrustStramException,
)

from .lifecycle import Lifecycle
from .logs import write_access
from .metrics import Metrics
from .stores.engine import is_unavailable
from .stores.ids import new_id
from .stores.outbox import ORGANISATION_STREAM

__all__ = [
    "ABANDONED",
    "PROBLEM_TYPE",
    "AccessLog",
    "Named",
    "content_digest",
    "declared_sha256",
    "name_operation",
    "problem",
    "unexpected",
    "whole_body",
]

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"

#: what the log says of a request whose caller left before it had its answer; never sent
ABANDONED = 499


def problem(
    error: TrustStramException,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The error as an answer; ``status`` overrides the class's own."""
    document: dict[str, Any] = error.to_problem()
    sent = dict(headers or {})
    if status is not None:
        document["status"] = status
    if document["status"] == 401:
        sent["WWW-Authenticate"] = 'Bearer realm="truststram-lab"'
    if document.get("retry_after") is not None:
        sent["Retry-After"] = f"{document['retry_after']:g}"
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(body, document["status"], sent, PROBLEM_TYPE)


def unexpected(error: Exception) -> TrustStramException:
    """What to answer to an error that no service foresaw; the log has it under the id."""
    if isinstance(error, IntegrityError):
        log.warning("two requests collided: %s", error.orig)
        return ConflictError("Another request changed the same thing just now; send it again.")
    if is_unavailable(error):
        log.warning("the database does not answer: %s", error)
        return PlatformUnavailableError(
            "The platform's database does not answer now; send the request again in a moment."
        )
    request_id = new_id("req")
    log.error("unexpected (%s)", request_id, exc_info=error)
    return PlatformError(
        f"The platform failed; its log has the reason under {request_id}.", request_id=request_id
    )


def content_digest(sha256: str) -> str:
    """The Content-Digest header for a SHA-256 in hexadecimal."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def declared_sha256(header: str | None) -> str:
    """The SHA-256, in hexadecimal, that a Content-Digest header declares (RFC 9530, section 2).

    Raises:
        InvalidInputError: no header, or no well-formed sha-256 in it.
    """
    for part in (header or "").split(","):
        found = re.fullmatch(r"\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*", part)
        if found:
            return base64.b64decode(found[1]).hex()
    raise InvalidInputError(
        f"Content-Digest {header!r} has no SHA-256; send Content-Digest: sha-256=:<base64>: of the "
        "body.",
        field="Content-Digest",
    )


def _is_passive(scope: Scope) -> bool:
    """Whether somebody only looks on, which is no reason to stay: a sandbox may end meanwhile.

    These are the question who is here, the organisation's stream, and what says so itself:
    Jupyter's panel looks for the platform and listens as long as a browser shows it.
    """
    if scope["method"] not in ("GET", "HEAD"):
        return False
    if scope["path"] == "/health":
        return True
    if scope["path"] == "/api/v1/events":
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if query.get("stream") == [ORGANISATION_STREAM]:
            return True
    return Headers(scope=scope).get("truststram-passive") == "1"


class AccessLog:
    """The outermost layer: one log line a request, and no error without a sentence."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, sent, received = time.perf_counter(), ABANDONED, 0, 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        state = scope.setdefault("state", {})
        with self._lifecycle.request(passive=_is_passive(scope)):
            try:
                await self._answer(scope, counted_receive, counted_send, lambda: status)
            finally:
                who, took_s = state.get("principal"), time.perf_counter() - started
                label = "-" if who is None else who.label
                ms = round(took_s * 1000, 2)
                method = scope["method"]
                write_access(label, method, scope["path"], status, received, sent, ms)
                self._metrics.request(state.get("operation", "none"), method, status, took_s)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, status: Callable[[], int]
    ) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return  # nobody is left to answer; and the line says so
        except TrustStramException as error:
            response = problem(error)
        except Exception as error:  # noqa: BLE001 - it is logged, and answered as a problem
            # A route's error was answered and logged further in, under the same id.
            response = scope["state"].get("failure") or problem(unexpected(error))
        else:
            return
        if status() == ABANDONED:
            await response(scope, receive, send)


class Named:
    """Leaves the operation's name where the outermost layer finds it, below every copy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await self._app(scope, receive, send)
        finally:
            endpoint = scope.get("endpoint")
            if endpoint is not None:
                name_operation(scope, endpoint.__name__)


def name_operation(scope: Scope, name: str) -> None:
    """The request in ``scope`` is for this operation of the API."""
    scope["state"]["operation"] = name


async def whole_body(receive: Receive) -> bytes:
    """A request's body, in one piece.

    Raises:
        ClientDisconnect: the caller left before it was whole.
    """
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
