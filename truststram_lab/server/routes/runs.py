"""Runs: planned, looked at, stopped, resumed, reported on, and read back."""

from __future__ import annotations

from fastapi import APIRouter, status

from truststram_lab.schemas.base import Page
from truststram_lab.schemas.federation import CreateRun, Run, RunReport, RunRound, RunUpdate
from truststram_lab.server.deps import Caller, Platform

from .paging import Cursor, Limit, Search

router = APIRouter(prefix="/api/v1", tags=["federation"])


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
    """Announce a run and open its first round, if its sites are there."""
    run = platform.runs.create(caller.organisation_id, body)
    platform.advancer.submit(run.id)
    return run


@router.get("/runs/{ref}")
def get_run(ref: str, platform: Platform, caller: Caller) -> Run:
    """The run of that name or id."""
    return platform.runs.get(caller.organisation_id, ref)


@router.get("/runs/{ref}/updates")
def list_updates(ref: str, platform: Platform, caller: Caller) -> Page[RunUpdate]:
    """Every update that the run's sites sent, round by round."""
    return platform.records.updates(caller.organisation_id, ref)


@router.get("/runs/{ref}/rounds")
def list_rounds(ref: str, platform: Platform, caller: Caller) -> Page[RunRound]:
    """Every round of the run, with the digests of what went in and what came out."""
    return platform.records.rounds(caller.organisation_id, ref)


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
