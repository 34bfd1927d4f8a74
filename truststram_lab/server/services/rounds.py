"""What a site does in a round: ask for work, take the model, give an update."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, exists, func, insert, select, update

from truststram_lab.exceptions import (
    ConflictError,
    NotFoundError,
    RoundClosedError,
    UpdateRejectedError,
)
from truststram_lab.schemas.federation import Assignment, CreateRun, UpdateReceipt
from truststram_lab.schemas.tables import Statistics
from truststram_lab.server.stores.blobs import BlobStore, BlobWriter
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import timestamp
from truststram_lab.server.stores.tables import rounds, run_sites, runs, updates

from .accounts import Principal
from .runs import ACTIVE, tell

__all__ = ["Accepted", "RoundsService"]

_METRICS_LIMIT = 100


@dataclass(frozen=True)
class Accepted:
    """A receipt, and whether the round is now complete and can be aggregated."""

    receipt: UpdateReceipt
    run_id: str
    complete: bool


class RoundsService:
    """The sites' side of the runs."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs

    def assignments(self, principal: Principal) -> tuple[list[Assignment], list[str]]:
        """What this site still has to push now, oldest run first, and the runs whose rounds
        are complete but not aggregated (a crash may have come between the two)."""
        pushed = exists().where(
            updates.c.round_id == rounds.c.id, updates.c.principal_id == principal.id
        )
        query = (
            select(rounds, runs.c.name, runs.c.plan, runs.c.statistics)
            .join(runs, runs.c.id == rounds.c.run_id)
            .join(run_sites, run_sites.c.run_id == runs.c.id)
            .where(
                run_sites.c.principal_id == principal.id,
                runs.c.status.in_(ACTIVE),
                rounds.c.status == "open",
                ~pushed,
            )
            .order_by(runs.c.created_at, runs.c.id)
        )
        waiting = (
            select(runs.c.id)
            .join(rounds, rounds.c.run_id == runs.c.id)
            .join(run_sites, run_sites.c.run_id == runs.c.id)
            .where(
                run_sites.c.principal_id == principal.id,
                runs.c.status.in_(ACTIVE),
                rounds.c.status == "aggregating",
            )
        )
        with reading(self._engine) as connection:
            found = [_assignment(row) for row in connection.execute(query)]
            return found, list(connection.execute(waiting).scalars())

    def model(self, principal: Principal, round_id: str) -> str:
        """The SHA-256 of the weights that a training round starts from.

        Raises:
            NotFoundError: the site has no such round, or it is the statistics round.
        """
        with reading(self._engine) as connection:
            row = _round(connection, principal, round_id)
        if row.model_sha256 is None:
            raise NotFoundError(
                f"Round {round_id} gathers statistics and has no model; send the moments.",
                name=round_id,
            )
        return str(row.model_sha256)

    def before_push(self, principal: Principal, round_id: str, sha256: str) -> UpdateReceipt | None:
        """Refuse a push before its body is read, or give the receipt of a repeated one.

        Raises:
            NotFoundError: the site has no such round.
            RoundClosedError: the round is closed, or the run is stopped, completed or failed.
            ConflictError: the site gave this round another update before.
        """
        with reading(self._engine) as connection:
            row = _round(connection, principal, round_id)
            return _check_open(connection, principal, row, sha256)

    def push(self, principal: Principal, round_id: str, writer: BlobWriter) -> Accepted:
        """Take an update that was received whole and whose digest is right.

        Raises:
            UpdateRejectedError: wrong arrays, values or counts; nothing is kept.
            NotFoundError, RoundClosedError, ConflictError: as in ``before_push``.
        """
        with reading(self._engine) as connection:
            row = _round(connection, principal, round_id)
            receipt = _check_open(connection, principal, row, writer.sha256)
            if receipt is not None:
                return Accepted(receipt, row.run_id, complete=False)
            reported = _reported_rows(connection, principal, row)
        plan = CreateRun.model_validate(row.plan)
        samples, metrics = self._check_update(principal, row, plan, writer, reported)
        blob = writer.commit()
        now = timestamp()
        with writing(self._engine) as connection:
            row = _round(connection, principal, round_id, lock=True)
            receipt = _check_open(connection, principal, row, blob.sha256)
            if receipt is not None:
                return Accepted(receipt, row.run_id, complete=False)
            self._blobs.record(connection, principal.organisation_id, blob, now)
            connection.execute(
                insert(updates).values(
                    round_id=round_id,
                    principal_id=principal.id,
                    organisation_id=principal.organisation_id,
                    sha256=blob.sha256,
                    size_bytes=blob.size_bytes,
                    sample_count=samples,
                    metrics=metrics,
                    created_at=now,
                )
            )
            told = {"site": row.site, "number": row.number, "size_bytes": blob.size_bytes}
            run = connection.execute(select(runs).where(runs.c.id == row.run_id)).one()
            tell(connection, run, "update.received", told, now)
            connection.execute(update(runs).where(runs.c.id == run.id).values(updated_at=now))
            complete = _count(connection, round_id) == len(plan.sites)
            if complete:
                connection.execute(
                    update(rounds).where(rounds.c.id == round_id).values(status="aggregating")
                )
        return Accepted(UpdateReceipt(round_id=round_id, sha256=blob.sha256), run.id, complete)

    def _check_update(
        self,
        principal: Principal,
        row: Row[Any],
        plan: CreateRun,
        writer: BlobWriter,
        reported: int | None,
    ) -> tuple[int, dict[str, float]]:
        # numpy is loaded on first use: the platform listens before that
        from truststram_lab.learning import weights
        from truststram_lab.learning.statistics import check_moments

        state, metadata = weights.decode(writer.content())
        metrics = _metrics(metadata.get("metrics", "{}"))
        if row.kind == "statistics":
            check_moments(state, plan.signature, plan.min_site_rows)
            return int(state["rows"][0]), metrics
        samples = _sample_count(metadata.get("sample_count"))
        if reported is not None and samples > reported:
            raise UpdateRejectedError(
                f"sample_count {samples} is more than the {reported} rows that this site reported "
                "in the statistics round; send the number of rows trained on.",
                field="sample_count",
            )
        base, _ = weights.decode(self._blobs.map(principal.organisation_id, row.model_sha256))
        weights.check_update(state, base)
        return samples, metrics


def _assignment(row: Row[Any]) -> Assignment:
    plan = CreateRun.model_validate(row.plan)
    return Assignment(
        round_id=row.id,
        run_id=row.run_id,
        run=row.name,
        kind=row.kind,
        number=row.number,
        rounds=plan.rounds,
        status=row.status,
        model_sha256=row.model_sha256,
        statistics=None if row.statistics is None else Statistics.model_validate(row.statistics),
        signature=plan.signature,
        architecture=plan.architecture,
        local=plan.local,
        seed=plan.seed,
        min_site_rows=plan.min_site_rows,
    )


def _round(
    connection: Connection, principal: Principal, round_id: str, *, lock: bool = False
) -> Row[Any]:
    """The round with its run's status, if this site takes part in it."""
    query = (
        select(
            rounds,
            runs.c.name.label("run"),
            runs.c.status.label("run_status"),
            runs.c.plan,
            run_sites.c.name.label("site"),
        )
        .join(runs, runs.c.id == rounds.c.run_id)
        .join(
            run_sites,
            and_(run_sites.c.run_id == runs.c.id, run_sites.c.principal_id == principal.id),
        )
        .where(rounds.c.id == round_id, runs.c.organisation_id == principal.organisation_id)
    )
    # The run's row is what a stop, a push and an aggregation queue for on PostgreSQL.
    row = connection.execute(query.with_for_update(of=runs) if lock else query).one_or_none()
    if row is None:
        raise NotFoundError(
            f"There is no round {round_id!r} for this site; ask for the assignments again.",
            name=round_id,
        )
    return row


def _check_open(
    connection: Connection, principal: Principal, row: Row[Any], sha256: str
) -> UpdateReceipt | None:
    former = connection.execute(
        select(updates.c.sha256).where(
            updates.c.round_id == row.id, updates.c.principal_id == principal.id
        )
    ).scalar_one_or_none()
    if former == sha256:
        return UpdateReceipt(round_id=row.id, sha256=sha256, duplicate=True)
    if row.run_status not in ACTIVE:
        way_out = "resume it to go on" if row.run_status == "stopped" else "it takes no updates"
        raise RoundClosedError(f"Run {row.run} is {row.run_status}; {way_out}.")
    if row.status == "closed":
        raise RoundClosedError(
            f"Round {row.number} of run {row.run} is closed; ask for the assignments again."
        )
    if former is not None:
        raise ConflictError(
            f"Site {row.site!r} gave round {row.number} of run {row.run} another update before; "
            "the first one counts."
        )
    return None


def _reported_rows(connection: Connection, principal: Principal, row: Row[Any]) -> int | None:
    """How many rows the site had in the run's statistics round."""
    found: int | None = connection.execute(
        select(updates.c.sample_count)
        .join(rounds, rounds.c.id == updates.c.round_id)
        .where(
            rounds.c.run_id == row.run_id,
            rounds.c.kind == "statistics",
            updates.c.principal_id == principal.id,
        )
    ).scalar_one_or_none()
    return found


def _count(connection: Connection, round_id: str) -> int:
    query = select(func.count()).select_from(updates).where(updates.c.round_id == round_id)
    return int(connection.execute(query).scalar_one())


def _sample_count(text: str | None) -> int:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text)):
        raise UpdateRejectedError(
            f"The file's metadata has sample_count {text!r}; it must be the number of rows "
            "trained on, 1 or more.",
            field="sample_count",
        )
    return int(text)


def _metrics(text: str) -> dict[str, float]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping) or len(found) > _METRICS_LIMIT:
        found = None
    if found is None or not all(
        isinstance(name, str)
        and len(name) <= _METRICS_LIMIT
        and isinstance(value, int | float)
        and abs(value) < 2**1023
        and math.isfinite(value)
        for name, value in found.items()
    ):
        raise UpdateRejectedError(
            f"The file's metadata has no usable metrics; send a JSON object of at most "
            f"{_METRICS_LIMIT} finite numbers, or leave it out.",
            field="metrics",
        )
    return {name: float(value) for name, value in found.items()}
