"""Federations, runs and their events, from the owner's side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from truststram_lab.schemas.base import Page
from truststram_lab.schemas.federation import (
    CreateFederation,
    CreateRun,
    Federation,
    Invitation,
    Invite,
    Run,
    RunReport,
    RunRound,
    RunUpdate,
    SetBudget,
)
from truststram_lab.schemas.participation import Preflight
from truststram_lab.schemas.privacy import PrivacyBudget
from truststram_lab.transport import Call, Resource, call
from truststram_lab.transport.calls import D
from truststram_lab.transport.drivers import AsyncHttpDriver, HttpDriver
from truststram_lab.transport.sse import Subscription
from truststram_lab.transport.streams import AsyncEventStream, EventStream

from .refs import segment

__all__ = ["AsyncEvents", "Events", "Federations", "Runs"]

# Inside the classes ``list`` is a method.
_Invitations = list[Invitation]


class Federations(Resource[D]):
    """``client.federations``"""

    @call
    def create(self, name: str, *, description: str = "") -> Call[Federation]:
        """The federation of that name; made if there is none."""
        body = CreateFederation(name=name, description=description)
        return Call("POST", "/api/v1/federations", Federation, json=body)

    @call
    def get(self, name: str) -> Call[Federation]:
        """A federation; raises NotFoundError with the nearest names."""
        return Call("GET", _federation(name), Federation)

    @call
    def open(self, name: str) -> Call[Federation]:
        """Let it take runs and participants again."""
        return Call("POST", f"{_federation(name)}/open", Federation)

    @call
    def close(self, name: str) -> Call[Federation]:
        """Let it take no new run and no new participant; runs in progress go on."""
        return Call("POST", f"{_federation(name)}/close", Federation)

    @call
    def preflight(self, name: str) -> Call[Preflight]:
        """Whether the tables that its sites have described fit together."""
        return Call("GET", f"{_federation(name)}/preflight", Preflight)

    @call
    def privacy(self, name: str) -> Call[PrivacyBudget]:
        """What its rounds have spent, and of which budget."""
        return Call("GET", f"{_federation(name)}/privacy", PrivacyBudget)

    @call
    def set_budget(self, name: str, budget: SetBudget) -> Call[PrivacyBudget]:
        """Set the most that its sites' data may ever spend.

        Raises:
            ConflictError: more is spent already, or in the other unit.
        """
        return Call("PUT", f"{_federation(name)}/budget", PrivacyBudget, json=budget)

    @call
    def list(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[Federation]]:
        """One page of federations."""
        query = {"limit": limit, "cursor": cursor}
        return Call("GET", "/api/v1/federations", Page[Federation], query=query)

    @call
    def invite(
        self, name: str, participants: Sequence[str], *, keep: bool = False
    ) -> Call[_Invitations]:
        """A new credential for each participant; an earlier one stops working unless ``keep``."""
        return Call(
            "POST",
            f"{_federation(name)}/invite",
            _Invitations,
            json=Invite(participants=[*participants], keep=keep),
        )


class Runs(Resource[D]):
    """``client.runs``; a run is named by its name or id."""

    @call
    def create(self, plan: CreateRun) -> Call[Run]:
        """Open a run; its first round waits for the sites of the plan."""
        return Call("POST", "/api/v1/runs", Run, json=plan)

    @call
    def list(
        self, *, limit: int | None = None, cursor: str | None = None, search: str | None = None
    ) -> Call[Page[Run]]:
        """One page of runs, newest first."""
        query = {"limit": limit, "cursor": cursor, "search": search}
        return Call("GET", "/api/v1/runs", Page[Run], query=query)

    @call
    def get(self, run: str) -> Call[Run]:
        """A run; raises RunNotFoundError with the nearest names."""
        return Call("GET", _path(run), Run)

    @call
    def stop(self, run: str) -> Call[Run]:
        """Stop a run; updates that arrive afterwards are refused. It can be resumed."""
        return Call("POST", f"{_path(run)}/stop", Run)

    @call
    def resume(self, run: str) -> Call[Run]:
        """Continue a stopped run in the round where it stopped; else ConflictError."""
        return Call("POST", f"{_path(run)}/resume", Run)

    @call
    def report(self, run: str, report: RunReport) -> Call[Run]:
        """Replace the run's report by ``report`` as a whole."""
        return Call("PUT", f"{_path(run)}/report", Run, json=report)

    @call
    def updates(self, run: str) -> Call[Page[RunUpdate]]:
        """Every update that the run's sites sent, round by round."""
        return Call("GET", f"{_path(run)}/updates", Page[RunUpdate])

    @call
    def rounds(self, run: str) -> Call[Page[RunRound]]:
        """Every round of the run, with the digests of what went in and what came out."""
        return Call("GET", f"{_path(run)}/rounds", Page[RunRound])


class Events:
    """``client.events``"""

    def __init__(self, driver: HttpDriver) -> None:
        self._driver = driver

    def stream(self, name: str, *, after: int | Literal["latest"] = 0) -> EventStream:
        """The events of ``run:<id>`` or ``org`` after number ``after``, as they happen.

        ``after="latest"`` leaves out what was there when the first event is asked for. The
        stream survives cuts and restarts of the platform without losing or repeating an event,
        and ends when the run is completed or has failed. ``close()`` ends it from any thread.
        """
        return EventStream(self._driver.sibling(), Subscription(name, after))


class AsyncEvents:
    """``client.events`` of the async client"""

    def __init__(self, driver: AsyncHttpDriver) -> None:
        self._driver = driver

    def stream(self, name: str, *, after: int | Literal["latest"] = 0) -> AsyncEventStream:
        """The same with ``async for``; ``aclose()`` or cancelling the task ends it."""
        return AsyncEventStream(self._driver.sibling(), Subscription(name, after))


def _federation(name: str) -> str:
    return f"/api/v1/federations/{segment(name, 'a federation')}"


def _path(run: str) -> str:
    return f"/api/v1/runs/{segment(run, 'a run')}"
