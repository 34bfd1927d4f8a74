"""Runs: planned, looked at, stopped, resumed, and reported on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, insert, null, or_, select, update

from truststram_lab.exceptions import (
    ConflictError,
    InvalidInputError,
    RunNotFoundError,
    nearest,
)
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.federation import CreateRun, RoundReport, Run, RunReport
from truststram_lab.server.stores import outbox
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import (
    participants,
    rounds,
    run_sites,
    runs,
    streams,
    updates,
)

from .budgets import check_budget
from .federation import find_federation
from .opening import hides_cohort, last_round, open_next, wake_sites
from .paging import page
from .plan_checks import check_plan
from .plans import plan_of
from .presence import Presence
from .status import ACTIVE, set_status, tell

__all__ = ["RunsService", "find_run"]


class RunsService:
    """The runs of an organisation."""

    def __init__(self, engine: Engine, blobs: BlobStore, presence: Presence | None = None) -> None:
        self._engine = engine
        self._blobs = blobs
        self._presence = presence or Presence()

    def create(self, organisation_id: str, plan: CreateRun) -> Run:
        """Announce a run; its first round is open when this returns, if the sites are there.

        Raises:
            InvalidInputError: the plan contradicts itself, names a site that was not
                invited, or weights that were not uploaded or do not fit.
            ConflictError: the federation is closed.
            NotFoundError: no such federation.
        """
        check_plan(self._engine, self._blobs, organisation_id, plan)
        now = timestamp()
        with writing(self._engine) as connection:
            federation = find_federation(connection, organisation_id, plan.federation)
            if federation.closed_at is not None:
                raise ConflictError(
                    f"Federation {federation.name} is closed; open it again with "
                    f"POST /api/v1/federations/{federation.name}/open."
                )
            check_budget(connection, federation, plan)
            sites = _site_principals(connection, federation, plan.sites)
            last = connection.execute(
                select(func.max(runs.c.number)).where(
                    runs.c.organisation_id == organisation_id, runs.c.model == plan.model
                )
            ).scalar_one()
            number = (last or 0) + 1
            row = connection.execute(
                insert(runs)
                .values(
                    id=new_id("run"),
                    organisation_id=organisation_id,
                    federation_id=federation.id,
                    name=f"{plan.model}-{number}",
                    model=plan.model,
                    number=number,
                    status="training" if plan.signature is None else "statistics",
                    plan=plan.model_dump(mode="json"),
                    deployed=False,
                    created_at=now,
                    updated_at=now,
                )
                .returning(runs)
            ).one()
            named = [
                {"run_id": row.id, "position": place, "principal_id": sites[name], "name": name}
                for place, name in enumerate(plan.sites)
            ]
            if named:
                connection.execute(insert(run_sites), named)
            tell(connection, row, "run.created", {"run": row.name, "model": plan.model}, now)
            outbox.append(
                connection,
                organisation_id,
                outbox.ORGANISATION_STREAM,
                "run.created",
                {"run": row.name, "run_id": row.id, "status": row.status},
                now,
            )
            if open_next(connection, row, plan, self._presence, now) == "waiting":
                wake_sites(connection, row, plan)
            return _views(connection, [_find(connection, organisation_id, row.id)])[0]

    def list_runs(
        self, organisation_id: str, *, limit: int, cursor: str | None, search: str | None
    ) -> Page[Run]:
        """The runs, newest first."""
        query = select(runs).where(runs.c.organisation_id == organisation_id)
        with reading(self._engine) as connection:
            rows, following = page(
                connection, query, runs, limit=limit, cursor=cursor, search=search
            )
            return Page[Run](items=_views(connection, rows), next_cursor=following)

    def get(self, organisation_id: str, ref: str) -> Run:
        """The run of that name or id; RunNotFoundError has the nearest names."""
        with reading(self._engine) as connection:
            return _views(connection, [_find(connection, organisation_id, ref)])[0]

    def stop(self, organisation_id: str, ref: str) -> Run:
        """Stop giving out work and taking updates; what came in is kept for a resume.

        Stopping a stopped run changes nothing. ConflictError if it is completed or failed.
        """
        now = timestamp()
        with writing(self._engine) as connection:
            row = _find(connection, organisation_id, ref)
            if row.status in ACTIVE:
                set_status(connection, row, "stopped", now, resume_status=row.status)
                tell(connection, row, "run.stopped", {"round": _last_number(connection, row)}, now)
            elif row.status != "stopped":
                raise ConflictError(
                    f"Run {row.name} is {row.status}; only a run in progress can be stopped."
                )
            return _views(connection, [_find(connection, organisation_id, row.id)])[0]

    def resume(self, organisation_id: str, ref: str) -> Run:
        """Go on in the round in which the run was stopped; ConflictError unless stopped.

        A round with a deadline gets a new one.
        """
        now = timestamp()
        with writing(self._engine) as connection:
            row = _find(connection, organisation_id, ref)
            if row.status != "stopped":
                raise ConflictError(
                    f"Run {row.name} is {row.status}; only a stopped run can be resumed."
                )
            values = {"resume_status": None, "reason": None, "waiting_until_s": None}
            set_status(connection, row, row.resume_status, now, **values)
            tell(connection, row, "run.resumed", {"status": row.resume_status}, now)
            plan = plan_of(connection, row.id)
            _set_deadline(connection, row, plan)
            wake_sites(connection, row, plan)
            return _views(connection, [_find(connection, organisation_id, row.id)])[0]

    def report(self, organisation_id: str, ref: str, report: RunReport) -> Run:
        """Replace what the run's owner measured."""
        now = timestamp()
        with writing(self._engine) as connection:
            row = _find(connection, organisation_id, ref)
            connection.execute(
                update(runs)
                .where(runs.c.id == row.id)
                .values(report=report.model_dump(mode="json"), updated_at=now)
            )
            tell(connection, row, "run.reported", {"rounds": len(report.history)}, now)
            if row.status not in ACTIVE:
                # Nobody follows a run's own stream any more once it has ended.
                told = {"run": row.name, "run_id": row.id}
                outbox.append(
                    connection,
                    organisation_id,
                    outbox.ORGANISATION_STREAM,
                    "run.reported",
                    told,
                    now,
                )
            return _views(connection, [_find(connection, organisation_id, row.id)])[0]


def _set_deadline(connection: Connection, run: Row[Any], plan: CreateRun) -> None:
    """Give the open round, if there is one, its whole time again, and ask who declined anew."""
    deadline = plan.quorum.deadline_s
    until = None if deadline is None else time.time() + deadline
    connection.execute(
        update(rounds)
        .where(rounds.c.run_id == run.id, rounds.c.status == "open")
        .values(deadline_at_s=until)
    )
    connection.execute(
        update(rounds)
        .where(
            rounds.c.run_id == run.id, or_(rounds.c.status == "open", rounds.c.kind != "initial")
        )
        .values(declined=null())
    )


def _site_principals(
    connection: Connection, federation: Row[Any], names: Sequence[str]
) -> dict[str, str]:
    known = {
        row.name: row.principal_id
        for row in connection.execute(
            select(participants.c.name, participants.c.principal_id).where(
                participants.c.federation_id == federation.id
            )
        )
    }
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close[0]!r}?" if close else "invite it first."
            raise InvalidInputError(
                f"Site {name!r} is not in federation {federation.name!r}; {hint}",
                field="sites",
                choices=close,
            )
    return {name: known[name] for name in names}


def find_run(connection: Connection, organisation_id: str, ref: str) -> Row[Any]:
    """The row of the run of that name or id; RunNotFoundError has the nearest names."""
    return _find(connection, organisation_id, ref)


def _find(connection: Connection, organisation_id: str, ref: str) -> Row[Any]:
    row = connection.execute(
        select(runs).where(
            runs.c.organisation_id == organisation_id,
            or_(runs.c.name == ref, runs.c.id == ref),
        )
    ).one_or_none()
    if row is not None:
        return row
    names = connection.execute(
        select(runs.c.name).where(runs.c.organisation_id == organisation_id)
    ).scalars()
    close = nearest(ref, list(names))
    hint = f"did you mean {close[0]!r}?" if close else "GET /api/v1/runs lists what there is."
    raise RunNotFoundError(f"There is no run {ref!r}; {hint}", run=ref, choices=close)


def _last_number(connection: Connection, run: Row[Any]) -> int:
    last = last_round(connection, run.id)
    return 0 if last is None else int(last.training_number)


def _views(connection: Connection, rows: Sequence[Row[Any]]) -> list[Run]:
    ids = [row.id for row in rows]
    closed = {
        row.run_id: row.closed
        for row in connection.execute(
            select(rounds.c.run_id, func.count().label("closed"))
            .where(
                rounds.c.run_id.in_(ids), rounds.c.kind == "training", rounds.c.status == "closed"
            )
            .group_by(rounds.c.run_id)
        )
    }
    pushed: dict[str, list[str]] = {}
    for row in connection.execute(
        select(rounds.c.run_id, run_sites.c.name)
        .join(updates, updates.c.round_id == rounds.c.id)
        .join(
            run_sites,
            and_(
                run_sites.c.run_id == rounds.c.run_id,
                run_sites.c.principal_id == updates.c.principal_id,
            ),
        )
        .where(rounds.c.run_id.in_(ids), rounds.c.status != "closed")
        .order_by(run_sites.c.position)
    ):
        pushed.setdefault(row.run_id, []).append(row.name)
    last = {
        row.name: row.last_sequence
        for row in connection.execute(
            select(streams.c.name, streams.c.last_sequence).where(
                streams.c.organisation_id.in_({row.organisation_id for row in rows}),
                streams.c.name.in_([outbox.run_stream(run_id) for run_id in ids]),
            )
        )
    }
    fields = Run.model_fields.keys() - {"plan", "report", "round", "pushed", "last_event"}
    found = []
    for one in rows:
        plan = plan_of(connection, one.id)
        found.append(
            Run.model_validate(
                {
                    **{name: one._mapping[name] for name in fields},
                    "plan": plan,
                    "report": _report(connection, one, plan),
                    "round": closed.get(one.id, 0),
                    "pushed": [] if hides_cohort(plan) else pushed.get(one.id, []),
                    "last_event": last.get(outbox.run_stream(one.id), 0),
                }
            )
        )
    return found


def _report(connection: Connection, run: Row[Any], plan: CreateRun) -> RunReport | None:
    """What the owner measured, with the history that the sites' evaluations give, if any."""
    report = None if run.report is None else RunReport.model_validate(run.report)
    if plan.evaluation == "none":
        return report
    query = (
        select(rounds.c.training_number, rounds.c.outcome)
        .where(
            rounds.c.run_id == run.id, rounds.c.kind == "evaluation", rounds.c.status == "closed"
        )
        .order_by(rounds.c.number)
    )
    history = [
        RoundReport(
            number=row.training_number,
            accuracy=row.outcome["metrics"].get("accuracy"),
            loss=row.outcome["metrics"]["loss"],
            rows=row.outcome["rows"],
            sites=row.outcome["sites"],
            metrics=row.outcome["metrics"],
        )
        for row in connection.execute(query)
        # nobody answered in time
        if row.outcome is not None and "loss" in row.outcome["metrics"]
    ]
    return (report or RunReport()).model_copy(update={"history": history})
