"""A site's doors: ask for work, take the model, give the update, keep a personal model."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from truststram_lab.exceptions import UpdateRejectedError
from truststram_lab.schemas.federation import Assignment, RoundPlan, UpdateReceipt
from truststram_lab.schemas.participation import ParticipationUpdate, SiteDescription
from truststram_lab.server.deps import (
    Caller,
    Platform,
    Services,
    caller,
    services,
    validation_problem,
)
from truststram_lab.server.http import content_digest, declared_sha256
from truststram_lab.server.services.accounts import Principal
from truststram_lab.server.services.rounds import Accepted
from truststram_lab.server.stores.blobs import BlobWriter
from truststram_lab.server.stores.outbox import site_topic

from .registry import OCTETS, send_file

router = APIRouter(prefix="/api/v1/training", tags=["federation"])

#: how long a push waits for the round's sum, so that the next round is open at its answer
_SUM_S = 1.0

#: bodies and files up to this are held in memory, one for each request that is under way
_HELD_BYTES = 8 * 2**20

_ASSIGNMENTS = TypeAdapter(list[Assignment])

_Known = Annotated[list[Annotated[str, Query(max_length=64)]], Query(max_length=100)]
_Digest = Annotated[str | None, Header(alias="Content-Digest")]
_Device = Annotated[str | None, Header(alias="TrustStram-Device", max_length=255)]


@router.get("/rounds", response_model=list[Assignment])
async def assignments(
    platform: Platform,
    caller: Caller,
    wait_s: Annotated[float, Query(ge=0, le=30)] = 0.0,
    known: _Known = [],  # noqa: B006 - FastAPI copies it
    device: _Device = None,
) -> Response:
    """The open rounds in which this site still has to push; waits for one up to ``wait_s``.

    Args:
        known: digests of plans that are not to be repeated.
        device: what asks; a second device under one identity is refused.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    topic = caller.organisation_id, site_topic(caller.id)
    presence = platform.rounds.presence
    with (
        presence.asking(caller.id, caller.name, device),
        platform.events.wakeups.listen(topic) as news,
    ):
        while True:
            news.clear()
            found, pending = await run_in_threadpool(platform.rounds.assignments, caller, known)
            turns = [asyncio.wrap_future(platform.advancer.submit(run)) for run in pending]
            left = deadline - loop.time()
            if left <= 0 and turns and not (found or platform.lifecycle.closing):
                # This very question may have opened a round.
                await asyncio.wait(turns, timeout=_SUM_S)
                found, _ = await run_in_threadpool(platform.rounds.assignments, caller, known)
            if found or left <= 0 or platform.lifecycle.closing:
                # Written here: the framework would look at every part of it once more.
                return Response(_ASSIGNMENTS.dump_json(found), media_type="application/json")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await news.wait()


@router.get("/plans/{sha256}", response_model=RoundPlan)
def round_plan(sha256: str, platform: Platform, caller: Caller) -> Response:
    """What all rounds of one of the site's runs have in common; never changes."""
    document = platform.rounds.plan(caller, sha256)
    headers = {"Cache-Control": "private, immutable", "ETag": f'"{sha256}"'}
    return Response(document, media_type="application/json", headers=headers)


@router.get("/rounds/{round_id}/model", response_class=Response)
def round_model(round_id: str, platform: Platform, caller: Caller) -> Response:
    """The global weights that the round starts from, as safetensors."""
    sha256 = platform.rounds.model(caller, round_id)
    # Whoever has the round has its model, so nothing is left to look up.
    content = platform.blobs.again(caller.organisation_id, sha256, _HELD_BYTES)
    if content is None:
        return send_file(platform, caller, sha256)
    headers = {"Content-Digest": content_digest(sha256), "ETag": f'"{sha256}"'}
    return Response(content, 200, headers, OCTETS)


@router.put("/rounds/{round_id}/update")
async def push_update(
    round_id: str,
    request: Request,
    platform: Platform,
    caller: Caller,
    digest: _Digest = None,
) -> UpdateReceipt:
    """Give the site's update of the round; the same bytes again change nothing."""
    expected = declared_sha256(digest)
    ticket = await run_in_threadpool(platform.rounds.before_push, caller, round_id, expected)
    if isinstance(ticket, UpdateReceipt):
        return ticket
    with platform.blobs.writer(caller.organisation_id) as writer:
        rest = await _receive(writer, request)

        def push() -> Accepted:
            _finish(writer, rest, expected)
            return platform.rounds.push(caller, ticket, writer)

        accepted = await run_in_threadpool(push)
    if accepted.complete:
        summed = asyncio.wrap_future(platform.advancer.submit(accepted.run_id))
        await asyncio.wait([summed], timeout=_SUM_S)
    return accepted.receipt


class _Question(BaseModel):
    """The parameters of ``assignments``, in the same bounds."""

    wait_s: float = Field(default=0.0, ge=0, le=30)
    known: list[Annotated[str, Field(max_length=64)]] = Field(default=[], max_length=100)
    header: dict[str, Annotated[str, Field(max_length=255)]] = {}


async def _assignments(request: Request) -> Response:
    asked: dict[str, object] = {"known": request.query_params.getlist("known")}
    if "wait_s" in request.query_params:
        asked["wait_s"] = request.query_params["wait_s"]
    device = request.headers.get("TrustStram-Device")
    if device is not None:
        asked["header"] = {"TrustStram-Device": device}
    try:
        question = _Question.model_validate(asked)
    except ValidationError as error:
        raise validation_problem(error.errors()) from error
    found = services(request), caller(request), question.wait_s, question.known, device
    return await assignments(*found)


async def _round_model(request: Request) -> Response:
    found = request.path_params["round_id"], services(request), caller(request)
    return await run_in_threadpool(round_model, *found)


async def _push_update(request: Request) -> Response:
    found = request.path_params["round_id"], request, services(request), caller(request)
    receipt = await push_update(*found, request.headers.get("content-digest"))
    return Response(receipt.model_dump_json(), media_type="application/json")


#: for the application to mount before ``router``: the same functions for every site and round,
#: without the framework's own work, which costs more than the look into the database
direct = [
    Route(f"{router.prefix}/rounds", _assignments, methods=["GET"]),
    Route(f"{router.prefix}/rounds/{{round_id}}/model", _round_model, methods=["GET"]),
    Route(f"{router.prefix}/rounds/{{round_id}}/update", _push_update, methods=["PUT"]),
]
for _route in direct:
    # Starlette lets HEAD in where GET is; these addresses do not take it.
    _route.methods = {"GET", "PUT"} & (_route.methods or set())


@router.post("/rounds/{round_id}/state", status_code=status.HTTP_204_NO_CONTENT)
def tell_state(
    round_id: str, body: ParticipationUpdate, platform: Platform, caller: Caller
) -> None:
    """Say how far the site is in a round; one that declines it is no longer waited for."""
    run_id = platform.rounds.state(caller, round_id, body)
    if run_id is not None:
        platform.advancer.submit(run_id)


@router.put("/description/{name}", status_code=status.HTTP_204_NO_CONTENT)
def describe(name: str, body: SiteDescription, platform: Platform, caller: Caller) -> None:
    """Say which columns and classes the site's table has, before the first round."""
    platform.preflight.describe(caller, name, body)


@router.get("/personalized/{name}", response_class=Response)
def personal_model(name: str, platform: Platform, caller: Caller) -> Response:
    """The site's own personal model, as it uploaded it last."""
    return send_file(platform, caller, platform.personal.find(caller, name))


@router.put("/personalized/{name}", status_code=status.HTTP_204_NO_CONTENT)
async def put_personal_model(
    name: str,
    request: Request,
    platform: Platform,
    caller: Caller,
    digest: _Digest = None,
) -> None:
    """Replace the site's personal model of that name by a safetensors file."""
    await _keep_personal(platform, caller, name, request, declared_sha256(digest))


async def _keep_personal(
    platform: Services, caller: Principal, name: str, request: Request, expected: str
) -> None:
    with platform.blobs.writer(caller.organisation_id) as writer:
        rest = await _receive(writer, request)

        def put() -> None:
            _finish(writer, rest, expected)
            platform.personal.put(caller, name, writer)

        await run_in_threadpool(put)


async def _receive(writer: BlobWriter, request: Request) -> list[bytes]:
    """Stream a large body to disk, hashing it; returns the pieces that are not written yet.

    The event loop never waits for the disk, and a body of ordinary size costs no thread of its
    own: its pieces are written where it is looked at.
    """
    pieces: list[bytes] = []
    held = 0
    async for piece in request.stream():
        pieces.append(piece)
        held += len(piece)
        if held >= _HELD_BYTES:
            await run_in_threadpool(_write, writer, pieces)
            pieces, held = [], 0
    return pieces


def _write(writer: BlobWriter, pieces: list[bytes]) -> None:
    # One by one: joined, they would take their own size once more.
    for piece in pieces:
        writer.write(piece)


def _finish(writer: BlobWriter, rest: list[bytes], expected: str) -> None:
    _write(writer, rest)
    if writer.sha256 != expected:
        raise UpdateRejectedError(
            f"The body's SHA-256 is {writer.sha256}, not {expected} as Content-Digest says; "
            "send it again.",
            field="Content-Digest",
        )
