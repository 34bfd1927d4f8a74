"""Events as they happen (server-sent events, WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.base import Event
from truststram_lab.server.deps import Caller, Platform, Services
from truststram_lab.server.services.accounts import Principal

router = APIRouter(prefix="/api/v1", tags=["events"])

#: seconds between two comments on a silent stream
HEARTBEAT_S = 10.0


@router.get("/events", response_class=StreamingResponse)
async def events(
    platform: Platform,
    caller: Caller,
    stream: Annotated[str, Query(max_length=300)],
    after: Annotated[int, Query(ge=0, lt=2**62)] = 0,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """The stream's events after number ``Last-Event-ID`` or ``after``, and then each new one."""
    if last_event_id is not None:
        if not (last_event_id.isascii() and last_event_id.isdigit()):
            raise InvalidInputError(
                f"Last-Event-ID {last_event_id!r} is not the number of an event; leave it out to "
                "start at the first.",
                field="Last-Event-ID",
            )
        after = int(last_event_id)
    name = await run_in_threadpool(platform.events.stream_name, caller.organisation_id, stream)
    return StreamingResponse(
        _follow(platform, caller, name, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _follow(
    platform: Services, caller: Principal, stream: str, after: int
) -> AsyncIterator[bytes]:
    yield b": open\n\n"
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
