"""Events as they happen (server-sent events, WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BeforeValidator, Field
from starlette.concurrency import run_in_threadpool

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.base import Event
from truststram_lab.server.deps import Caller, Platform, Services
from truststram_lab.server.services.accounts import Principal

router = APIRouter(prefix="/api/v1", tags=["events"])

#: seconds between two comments on a silent stream
HEARTBEAT_S = 10.0


def _number(text: str, field: str, way_out: str) -> int:
    # 18 digits: any number of an event, and every database's integer holds it
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidInputError(
            f"{field} {text[:80]!r} is not the number of an event; {way_out}.", field=field
        )
    return int(text)


def _after(value: object) -> object:
    """Checked here: pydantic would complain of both kinds, and of neither by its name."""
    if value == _LATEST or not isinstance(value, str):
        return value
    return _number(value, "after", f"leave it out to start at the first, or say {_LATEST}")


_LATEST = "latest"

After = Annotated[
    Annotated[int, Field(ge=0, lt=10**18)] | Literal["latest"], BeforeValidator(_after), Query()
]


@router.get("/events", response_class=StreamingResponse)
async def events(
    platform: Platform,
    caller: Caller,
    stream: Annotated[str, Query(max_length=300)],
    after: After = 0,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """The stream's events after number ``Last-Event-ID`` or ``after``, and then each new one.

    ``after=latest`` begins after the newest event there is. The stream then opens with that
    event's number (an ``id`` without ``data``), so that whoever is cut off before the first
    event resumes there.
    """
    if last_event_id is not None:
        after = _number(last_event_id, "Last-Event-ID", "leave it out to start at the first")
    organisation_id = caller.organisation_id
    name = await run_in_threadpool(platform.events.stream_name, organisation_id, stream)
    opening = b": open\n\n"
    if isinstance(after, str):
        newest = await run_in_threadpool(platform.events.latest, organisation_id, name)
        after, opening = newest, f": open\nid: {newest}\n\n".encode()
    return StreamingResponse(
        _follow(platform, caller, name, after, opening),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _follow(
    platform: Services, caller: Principal, stream: str, after: int, opening: bytes
) -> AsyncIterator[bytes]:
    yield opening
    with platform.events.wakeups.listen((caller.organisation_id, stream)) as news:
        while not platform.lifecycle.closing:
            news.clear()
            found, final = await run_in_threadpool(
                platform.events.read, caller.organisation_id, stream, after
            )
            for event in found:
                yield _frame(event)
                after = event.sequence
            if final:
                return
            if found:
                continue
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await news.wait()
            except TimeoutError:
                yield b": alive\n\n"


def _frame(event: Event) -> bytes:
    # pydantic's JSON has no line break, which would end the data field.
    return (
        f"id: {event.sequence}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()
    )
