"""The statements of a site's questions, built once: that costs more than running them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, Select, and_, bindparam, exists, func, insert, select, update

from truststram_lab.server.stores.tables import participants, rounds, run_sites, runs, updates

from .status import ACTIVE

__all__ = ["ADD", "COMPLETE", "COUNTED_ROUND", "OPEN", "PUSHED", "ROUND", "RUN", "TOUCH"]

_SITE: BindParameter[Any] = bindparam("site")
_PUSHED = exists().where(updates.c.round_id == rounds.c.id, updates.c.principal_id == _SITE)
OPEN = (
    select(
        runs.c.id.label("run_id"),
        runs.c.name.label("run"),
        runs.c.statistics.is_not(None).label("with_statistics"),
        run_sites.c.position.label("place"),
        rounds.c.id.label("round_id"),
        rounds.c.number,
        rounds.c.training_number,
        rounds.c.kind,
        rounds.c.status,
        rounds.c.model_sha256,
        rounds.c.cohort,
        rounds.c.declined,
        rounds.c.deadline_at_s,
        _PUSHED.label("pushed"),
    )
    .select_from(participants)
    .join(runs, runs.c.federation_id == participants.c.federation_id)
    .outerjoin(
        run_sites,
        and_(
            run_sites.c.run_id == runs.c.id,
            run_sites.c.principal_id == participants.c.principal_id,
        ),
    )
    .outerjoin(rounds, and_(rounds.c.run_id == runs.c.id, rounds.c.status != "closed"))
    .where(participants.c.principal_id == _SITE, runs.c.status.in_(ACTIVE))
    .order_by(runs.c.created_at, runs.c.id)
)
ROUND = (
    select(
        rounds,
        runs.c.name.label("run"),
        runs.c.status.label("run_status"),
        run_sites.c.name.label("site"),
        updates.c.sha256.label("former"),
    )
    .join(runs, runs.c.id == rounds.c.run_id)
    .join(run_sites, and_(run_sites.c.run_id == runs.c.id, run_sites.c.principal_id == _SITE))
    .outerjoin(updates, and_(updates.c.round_id == rounds.c.id, updates.c.principal_id == _SITE))
    .where(rounds.c.id == bindparam("round"), runs.c.organisation_id == bindparam("organisation"))
)
_TOLD = updates.alias("told")
_FIRST = rounds.alias("first")
# With what the site had in the statistics round, None where there was none.
PUSHED = ROUND.add_columns(
    select(_TOLD.c.sample_count)
    .join(_FIRST, _FIRST.c.id == _TOLD.c.round_id)
    .where(
        _FIRST.c.run_id == rounds.c.run_id,
        _FIRST.c.kind == "statistics",
        _TOLD.c.principal_id == _SITE,
    )
    .correlate(rounds)
    .scalar_subquery()
    .label("reported")
)
# With the number of updates that the round has.
COUNTED_ROUND = ROUND.add_columns(
    select(func.count())
    .select_from(_TOLD)
    .where(_TOLD.c.round_id == rounds.c.id)
    .correlate(rounds)
    .scalar_subquery()
    .label("given")
)
COMPLETE = update(rounds).where(rounds.c.id == bindparam("round")).values(status="aggregating")
RUN: Select[Any] = select(runs.c.id, runs.c.organisation_id, runs.c.name).where(
    runs.c.id == bindparam("run")
)
TOUCH = update(runs).where(runs.c.id == bindparam("run")).values(updated_at=bindparam("now"))
ADD = insert(updates)
