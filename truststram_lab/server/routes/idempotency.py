"""Bodies are strict JSON, and a change with an Idempotency-Key happens once.

A layer under the guard and above the routes, so that no route can forget it.
"""

from __future__ import annotations

import hashlib

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.server import strict_json
from truststram_lab.server.deps import Services
from truststram_lab.server.http import problem, whole_body
from truststram_lab.server.security import is_streamed
from truststram_lab.server.stores.claims import Answer, Claim, InFlightError
from truststram_lab.server.stores.engine import before_commit, writing

__all__ = ["Bodies"]

#: these say nothing about the change, only about this attempt
_NOT_KEPT = frozenset({401, 403, 413, 429})


class Bodies:
    """Reads and checks JSON bodies; repeats the answer of a repeated change."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        if is_streamed(scope["method"], scope["path"]):
            await self._app(scope, receive, send)  # content-addressed
            return
        body = await whole_body(receive)
        if body:
            strict_json.loads(body)
        again = _again(body, receive)
        key = Headers(scope=scope).get("idempotency-key")
        if key is None:
            await self._app(scope, again, send)
        else:
            await self._once(self._claim(scope, key, body), scope, again, send)

    def _claim(self, scope: Scope, key: str, body: bytes) -> Claim:
        if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
            raise InvalidInputError(
                "An Idempotency-Key has 1 to 255 printable ASCII characters; take a random UUID.",
                field="Idempotency-Key",
            )
        return Claim(
            principal_id=scope["state"]["principal"].id,
            method=scope["method"],
            path=scope["path"],
            key=key,
            body_sha256=hashlib.sha256(body).hexdigest(),
            instance=self._services.settings.instance,
            token=Headers(scope=scope)["authorization"].partition(" ")[2].strip(),
        )

    async def _once(self, claim: Claim, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            former = await run_in_threadpool(self._take, claim)
        except InFlightError as error:
            response = problem(ConflictError(str(error)), headers={"Retry-After": "1"})
            await response(scope, receive, send)
            return
        if former is not None:
            response = Response(former.body, former.status, {"Idempotent-Replay": "true"})
            response.headers["content-type"] = former.content_type
            await response(scope, receive, send)
            return
        recorder = _Recorder(send)
        applied = before_commit.set(claim.mark_applied)
        try:
            await self._app(scope, receive, recorder)
        finally:
            before_commit.reset(applied)
            await run_in_threadpool(self._settle, claim, recorder.answer())
        await recorder.forward()

    def _take(self, claim: Claim) -> Answer | None:
        with writing(self._services.engine) as connection:
            return claim.take(connection)

    def _settle(self, claim: Claim, answer: Answer | None) -> None:
        with writing(self._services.engine) as connection:
            if answer is None or answer.status >= 500 or answer.status in _NOT_KEPT:
                claim.release(connection)
            else:
                claim.complete(connection, answer)


class _Recorder:
    """Holds an answer back until it is stored: who has it can count on its repetition."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self._messages.append(message)

    async def forward(self) -> None:
        for message in self._messages:
            await self._send(message)

    def answer(self) -> Answer | None:
        """The whole answer; None if it was never finished."""
        if not self._messages or self._messages[-1].get("more_body", False):
            return None
        start = self._messages[0]
        if start["type"] != "http.response.start":
            return None
        content_type = MutableHeaders(raw=start["headers"]).get("content-type", "")
        body = b"".join(message.get("body", b"") for message in self._messages[1:])
        return Answer(start["status"], content_type, body)


def _again(body: bytes, receive: Receive) -> Receive:
    """``receive`` that gives the body that was read, and then what comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
