"""Federations, runs, and what their sites ask for and give."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response, status
from starlette.concurrency import run_in_threadpool

from truststram_lab.exceptions import UpdateRejectedError
from truststram_lab.schemas.accounts import Device, DeviceRegistration
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.federation import (
    Assignment,
    CreateFederation,
    CreateRun,
    Federation,
    Invitation,
    Invite,
    Run,
    RunReport,
    UpdateReceipt,
)
from truststram_lab.server.deps import Caller, Platform, receive_into
from truststram_lab.server.http import declared_sha256
from truststram_lab.server.stores.outbox import site_topic

from .paging import Cursor, Limit, Search
from .registry import send_file

router = APIRouter(prefix="/api/v1", tags=["federation"])

#: how long a push waits for the round's sum, so that the next round is open at its answer
_SUM_S = 1.0


@router.get("/federations")
def list_federations(
    platform: Platform,
    caller: Caller,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Search = None,
) -> Page[Federation]:
    """The federations, newest first."""
    return platform.federation.list_federations(
        caller.organisation_id, limit=limit, cursor=cursor, search=search
    )


@router.post("/federations")
def create_federation(body: CreateFederation, platform: Platform, caller: Caller) -> Federation:
    """The federation of that name, made if there is none."""
    return platform.federation.get_or_create(caller.organisation_id, body)


@router.post("/federations/{name}/invite")
def invite(name: str, body: Invite, platform: Platform, caller: Caller) -> list[Invitation]:
    """A credential a participant; a former one of the same participant stops working."""
    return platform.federation.invite(caller.organisation_id, name, body)


@router.post("/devices/register")
def register_device(body: DeviceRegistration, platform: Platform, caller: Caller) -> Device:
    """Register the site's device; the same identifier gives the same device."""
    return platform.federation.register(caller, body)


@router.get("/runs")
def list_runs(
    platform: Platform,
    caller: Caller,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Search = None,
) -> Page[Run]:
    """The runs, newest first."""
    return platform.runs.list_runs(
        caller.organisation_id, limit=limit, cursor=cursor, search=search
    )


@router.post("/runs", status_code=status.HTTP_201_CREATED)
def create_run(body: CreateRun, platform: Platform, caller: Caller) -> Run:
    """Announce a run and open its first round."""
    return platform.runs.create(caller.organisation_id, body)


@router.get("/runs/{ref}")
def get_run(ref: str, platform: Platform, caller: Caller) -> Run:
    """The run of that name or id."""
    return platform.runs.get(caller.organisation_id, ref)


@router.post("/runs/{ref}/stop")
def stop_run(ref: str, platform: Platform, caller: Caller) -> Run:
    """Stop the run; it can be resumed."""
    return platform.runs.stop(caller.organisation_id, ref)


@router.post("/runs/{ref}/resume")
def resume_run(ref: str, platform: Platform, caller: Caller) -> Run:
    """Go on with a stopped run."""
    run = platform.runs.resume(caller.organisation_id, ref)
    platform.advancer.submit(run.id)
    return run


@router.put("/runs/{ref}/report")
def report_run(ref: str, body: RunReport, platform: Platform, caller: Caller) -> Run:
    """Replace what the owner measured."""
    return platform.runs.report(caller.organisation_id, ref, body)


@router.get("/training/rounds")
async def assignments(
    platform: Platform, caller: Caller, wait_s: Annotated[float, Query(ge=0, le=30)] = 0.0
) -> list[Assignment]:
    """The open rounds in which this site still has to push; waits for one up to ``wait_s``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    topic = caller.organisation_id, site_topic(caller.id)
    with platform.events.wakeups.listen(topic) as news:
        while True:
            news.clear()
            found, complete = await run_in_threadpool(platform.rounds.assignments, caller)
            for run_id in complete:
                platform.advancer.submit(run_id)
            left = deadline - loop.time()
            if found or left <= 0 or platform.lifecycle.closing:
                return found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await news.wait()


@router.get("/training/rounds/{round_id}/model", response_class=Response)
def round_model(round_id: str, platform: Platform, caller: Caller) -> Response:
    """The global weights that the round starts from, as safetensors."""
    return send_file(platform, caller, platform.rounds.model(caller, round_id))


@router.put("/training/rounds/{round_id}/update")
async def push_update(
    round_id: str,
    request: Request,
    platform: Platform,
    caller: Caller,
    content_digest: Annotated[str | None, Header()] = None,
) -> UpdateReceipt:
    """Give the site's update of the round; the same bytes again change nothing."""
    expected = declared_sha256(content_digest)
    receipt = await run_in_threadpool(platform.rounds.before_push, caller, round_id, expected)
    if receipt is not None:
        return receipt
    with await run_in_threadpool(platform.blobs.writer, caller.organisation_id) as writer:
        await receive_into(writer, request)
        if writer.sha256 != expected:
            raise UpdateRejectedError(
                f"The body's SHA-256 is {writer.sha256}, not {expected} as Content-Digest says; "
                "send it again.",
                field="Content-Digest",
            )
        accepted = await run_in_threadpool(platform.rounds.push, caller, round_id, writer)
    if accepted.complete:
        summed = asyncio.wrap_future(platform.advancer.submit(accepted.run_id))
        await asyncio.wait([summed], timeout=_SUM_S)
    return accepted.receipt
