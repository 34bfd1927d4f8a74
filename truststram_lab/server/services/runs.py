"""Runs: planned, looked at, stopped, resumed, and reported on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, insert, or_, select, update

from truststram_lab.exceptions import (
    ConflictError,
    InvalidInputError,
    RunNotFoundError,
    nearest,
)
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.federation import CreateRun, Run, RunReport
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

from .federation import find_federation
from .paging import page
from .registry import check_architecture, check_weights

__all__ = ["ACTIVE", "RunsService", "open_round", "set_status"]

#: a run in one of these has work for its sites
ACTIVE = ("statistics", "training")


class RunsService:
    """The runs of an organisation."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs

    def create(self, organisation_id: str, plan: CreateRun) -> Run:
        """Announce a run; its statistics round is open when this returns.

        Raises:
            InvalidInputError: the plan contradicts itself, names a site that was not
                invited, or weights that were not uploaded or do not fit.
            NotFoundError: no such federation.
        """
        self._check_plan(organisation_id, plan)
        now = timestamp()
        with writing(self._engine) as connection:
            federation = find_federation(connection, organisation_id, plan.federation)
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
                    status="statistics",
                    plan=plan.model_dump(mode="json"),
                    deployed=False,
                    created_at=now,
                    updated_at=now,
                )
                .returning(runs)
            ).one()
            connection.execute(
                insert(run_sites),
                [
                    {"run_id": row.id, "position": place, "principal_id": sites[name], "name": name}
                    for place, name in enumerate(plan.sites)
                ],
            )
            tell(connection, row, "run.created", {"run": row.name, "model": plan.model}, now)
            outbox.append(
                connection,
                organisation_id,
                outbox.ORGANISATION_STREAM,
                "run.created",
                {"run": row.name, "run_id": row.id, "status": row.status},
                now,
            )
            open_round(connection, row, 0, None, now)
            return _views(connection, [row])[0]

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
        """Go on in the round in which the run was stopped; ConflictError unless stopped."""
        now = timestamp()
        with writing(self._engine) as connection:
            row = _find(connection, organisation_id, ref)
            if row.status != "stopped":
                raise ConflictError(
                    f"Run {row.name} is {row.status}; only a stopped run can be resumed."
                )
            set_status(connection, row, row.resume_status, now, resume_status=None)
            tell(connection, row, "run.resumed", {"status": row.resume_status}, now)
            _wake_sites(connection, row)
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
            return _views(connection, [_find(connection, organisation_id, row.id)])[0]

    def _check_plan(self, organisation_id: str, plan: CreateRun) -> None:
        from truststram_lab.preprocessing import encoded_width  # numpy loads on first use

        if len(set(plan.sites)) < len(plan.sites):
            twice = next(name for name in plan.sites if plan.sites.count(name) > 1)
            raise InvalidInputError(
                f"Site {twice!r} comes twice in the plan; name every site once.", field="sites"
            )
        check_architecture(plan.architecture, plan.signature)
        width = encoded_width(plan.signature)
        if plan.architecture.inputs != width:
            raise InvalidInputError(
                f"The signature encodes to {width} inputs, the architecture takes "
                f"{plan.architecture.inputs}; set inputs to {width}.",
                field="architecture.inputs",
            )
        with reading(self._engine) as connection:
            stored = self._blobs.find(connection, organisation_id, plan.initial_weights_sha256)
        if stored is None:
            raise InvalidInputError(
                f"No file with SHA-256 {plan.initial_weights_sha256} is stored; upload the initial "
                "weights first with PUT /api/v1/blobs/<sha256>.",
                field="initial_weights_sha256",
            )
        content = self._blobs.read(organisation_id, plan.initial_weights_sha256)
        state = check_weights(content, plan.architecture, "initial_weights_sha256")
        found = str(next(iter(state.values())).dtype)
        if found != plan.local.dtype:
            raise InvalidInputError(
                f"The initial weights are {found}, the plan trains in {plan.local.dtype}; "
                "upload weights of that type.",
                field="initial_weights_sha256",
            )


def tell(
    connection: Connection, run: Row[Any], kind: str, data: Mapping[str, object], now: str
) -> None:
    """Add an event to the run's own stream."""
    stream = outbox.run_stream(run.id)
    outbox.append(connection, run.organisation_id, stream, kind, data, now)


def set_status(
    connection: Connection, run: Row[Any], status: str, now: str, **values: object
) -> None:
    """Change a run's status (and ``values``), and say so in the organisation's stream."""
    connection.execute(
        update(runs).where(runs.c.id == run.id).values(status=status, updated_at=now, **values)
    )
    outbox.append(
        connection,
        run.organisation_id,
        outbox.ORGANISATION_STREAM,
        "run.status",
        {"run": run.name, "run_id": run.id, "status": status},
        now,
    )


def open_round(
    connection: Connection, run: Row[Any], number: int, model_sha256: str | None, now: str
) -> None:
    """Open a round (0 gathers statistics) and wake the sites that wait for work."""
    kind = "training" if number else "statistics"
    connection.execute(
        insert(rounds).values(
            id=new_id("rnd"),
            run_id=run.id,
            number=number,
            kind=kind,
            status="open",
            model_sha256=model_sha256,
            created_at=now,
        )
    )
    tell(connection, run, "round.opened", {"number": number, "kind": kind}, now)
    _wake_sites(connection, run)


def _wake_sites(connection: Connection, run: Row[Any]) -> None:
    sites = select(run_sites.c.principal_id).where(run_sites.c.run_id == run.id)
    for principal_id in connection.execute(sites).scalars():
        outbox.wake(connection, run.organisation_id, outbox.site_topic(principal_id))


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


def _find(connection: Connection, organisation_id: str, ref: str) -> Row[Any]:
    row = connection.execute(
        select(runs)
        .where(
            runs.c.organisation_id == organisation_id,
            or_(runs.c.name == ref, runs.c.id == ref),
        )
        .with_for_update()
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
    query = select(func.max(rounds.c.number)).where(rounds.c.run_id == run.id)
    return int(connection.execute(query).scalar_one())


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
    fields = Run.model_fields.keys() - {"round", "pushed", "last_event"}
    return [
        Run.model_validate(
            {
                **{name: row._mapping[name] for name in fields},
                "round": closed.get(row.id, 0),
                "pushed": pushed.get(row.id, []),
                "last_event": last.get(outbox.run_stream(row.id), 0),
            }
        )
        for row in rows
    ]
