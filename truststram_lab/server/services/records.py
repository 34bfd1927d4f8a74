"""What a run's sites have sent, and what each round was made of: to look at, and to replay."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Row, select

from truststram_lab.schemas.base import Page
from truststram_lab.schemas.federation import RunRound, RunUpdate
from truststram_lab.schemas.strategies import Scaffold
from truststram_lab.server.stores.engine import reading
from truststram_lab.server.stores.tables import rounds, run_sites, updates

from .closing import former_state, participation
from .opening import hides_cohort, roster
from .plans import plan_of
from .runs import find_run

__all__ = ["RecordsService"]


class RecordsService:
    """The records of runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def updates(self, organisation_id: str, ref: str) -> Page[RunUpdate]:
        """Every update of the run, round by round, in the order of the sites."""
        query = (
            select(
                updates,
                rounds.c.number,
                rounds.c.training_number,
                rounds.c.kind,
                run_sites.c.name,
            )
            .join(rounds, rounds.c.id == updates.c.round_id)
            .join(
                run_sites,
                (run_sites.c.run_id == rounds.c.run_id)
                & (run_sites.c.principal_id == updates.c.principal_id),
            )
        )
        with reading(self._engine) as connection:
            run = find_run(connection, organisation_id, ref)
            plan = plan_of(connection, run.id)
            # A secret cohort stays one, also in the order of the lines.
            hidden = hides_cohort(plan)
            last = updates.c.sha256 if hidden else run_sites.c.position
            rows = connection.execute(
                query.where(rounds.c.run_id == run.id).order_by(rounds.c.number, last)
            ).all()
        return Page[RunUpdate](items=[_update(row, hidden) for row in rows])

    def rounds(self, organisation_id: str, ref: str) -> Page[RunRound]:
        """Every round of the run, oldest first, with what went in and what came out."""
        with reading(self._engine) as connection:
            run = find_run(connection, organisation_id, ref)
            plan = plan_of(connection, run.id)
            order = [site.principal_id for site in roster(connection, run.id, plan)]
            found = []
            every = select(rounds).where(rounds.c.run_id == run.id).order_by(rounds.c.number)
            for row in connection.execute(every).all():
                given = {
                    one.principal_id: one
                    for one in connection.execute(
                        select(updates).where(updates.c.round_id == row.id)
                    )
                }
                ordered = [given[one] for one in order if one in given]
                share = 1.0
                if isinstance(plan.strategy, Scaffold) and row.kind == "training" and ordered:
                    share = participation(connection, run.id, plan, ordered)
                former = former_state(connection, row) if row.kind == "training" else None
                found.append(_round(row, ordered, former, share))
        return Page[RunRound](items=found)


def _update(row: Row[Any], hidden: bool) -> RunUpdate:
    return RunUpdate(
        round=row.training_number,
        kind=row.kind,
        site=None if hidden else row.name,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        samples=row.sample_count,
        metrics=row.metrics,
        steps=row.audit or [],
        created_at=row.created_at,
    )


def _round(row: Row[Any], ordered: list[Row[Any]], former: str | None, share: float) -> RunRound:
    return RunRound(
        id=row.id,
        number=row.training_number,
        kind=row.kind,
        status=row.status,
        model_sha256=row.model_sha256,
        result_sha256=row.result_sha256,
        former_state_sha256=former,
        server_state_sha256=row.server_state_sha256,
        noised_sha256=row.noised_sha256,
        updates=[one.sha256 for one in ordered],
        weights=[one.sample_count for one in ordered],
        participation=share,
        created_at=row.created_at,
        closed_at=row.closed_at,
    )
