"""What a site does in a round: ask for work, take the model, give an update."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    and_,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from truststram_lab.exceptions import (
    ConflictError,
    NotFoundError,
    RoundClosedError,
    UpdateRejectedError,
)
from truststram_lab.schemas.federation import Assignment, CreateRun, UpdateReceipt
from truststram_lab.schemas.participation import ParticipationUpdate
from truststram_lab.server.stores.blobs import BlobStore, BlobWriter
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import timestamp
from truststram_lab.server.stores.outbox import append, run_stream
from truststram_lab.server.stores.tables import participants, rounds, run_sites

from .accounts import Principal
from .layouts import Layouts
from .opening import hides_cohort
from .plans import plan_of, terms_of
from .presence import Presence
from .round_queries import ADD, COMPLETE, COUNTED_ROUND, OPEN, PUSHED, ROUND, RUN, TOUCH
from .status import ACTIVE, tell
from .updates import check_update

__all__ = ["Accepted", "RoundsService", "Ticket"]

#: States and refusals of one site in one round that become events; the rest is dropped.
_NEWS_LIMIT = 50


@dataclass(frozen=True)
class Accepted:
    """A receipt, and whether the round is now complete and can be aggregated."""

    receipt: UpdateReceipt
    run_id: str
    complete: bool


@dataclass(frozen=True)
class Ticket:
    """A round that takes a site's update, as it was before the update's body was read."""

    row: Row[Any]
    plan: CreateRun
    reported: int | None


class RoundsService:
    """The sites' side of the runs."""

    def __init__(self, engine: Engine, blobs: BlobStore, presence: Presence | None = None) -> None:
        self._engine = engine
        self._blobs = blobs
        self.presence = presence or Presence()
        self._layouts = Layouts(blobs)
        self._news: dict[tuple[str, str], int] = {}

    def assignments(
        self, principal: Principal, known: Collection[str] = ()
    ) -> tuple[list[Assignment], list[str]]:
        """What this site still has to push now, oldest run first, and the runs that something
        can be done for: complete rounds that a crash left, or waiting for just this site.

        Args:
            known: digests of plans that the site has, and is not sent again.
        """
        with reading(self._engine, once=True) as connection:
            rows = connection.execute(OPEN, {"site": principal.id}).all()
            new = [row.run_id for row in rows if row.place is None]
            if new:
                new = [one for one in new if plan_of(connection, one).open_roster]
            found: list[Assignment] = []
            pending = []
            for row in rows:
                if row.place is None:
                    continue
                if row.round_id is None or row.status == "aggregating":
                    pending.append(row.run_id)
                elif not row.pushed and _is_asked(row, principal.id):
                    found.append(_assignment(connection, row, known))
                elif row.kind == "initial":
                    pending.append(row.run_id)
        for run_id in new:
            self._join(principal, run_id)
            pending.append(run_id)
        return found, pending

    def _join(self, principal: Principal, run_id: str) -> None:
        """Take the site into a run with an open roster, at its place by invitation."""
        with writing(self._engine) as connection:
            there = exists().where(
                run_sites.c.run_id == run_id, run_sites.c.principal_id == principal.id
            )
            if connection.execute(select(literal(1)).where(there)).first() is not None:
                return
            me = connection.execute(
                select(participants).where(participants.c.principal_id == principal.id)
            ).one()
            before = select(func.count()).where(
                participants.c.federation_id == me.federation_id,
                or_(
                    participants.c.created_at < me.created_at,
                    and_(
                        participants.c.created_at == me.created_at,
                        participants.c.principal_id < me.principal_id,
                    ),
                ),
            )
            connection.execute(
                insert(run_sites).values(
                    run_id=run_id,
                    position=connection.execute(before).scalar_one(),
                    principal_id=principal.id,
                    name=me.name,
                )
            )
            run = connection.execute(RUN, {"run": run_id}).one()
            tell(connection, run, "site.joined", {"site": me.name}, timestamp())

    def plan(self, principal: Principal, sha256: str) -> bytes:
        """The document of a plan of one of the site's runs.

        Raises:
            NotFoundError: no run of this site has such a plan now.
        """
        with reading(self._engine) as connection:
            rows = connection.execute(OPEN, {"site": principal.id}).all()
            for row in rows:
                if row.place is None:
                    continue
                for with_statistics in {False, bool(row.with_statistics)}:
                    terms = terms_of(connection, row.run_id, with_statistics)
                    if terms.sha256 == sha256:
                        return terms.document
        raise NotFoundError(
            f"No run of this site has a plan {sha256!r} now; ask for the assignments again.",
            name=sha256,
        )

    def model(self, principal: Principal, round_id: str) -> str:
        """The SHA-256 of the weights that a round starts from.

        Raises:
            NotFoundError: the site has no such round, or the round has no model.
        """
        self.presence.seen(principal.id)
        with reading(self._engine, once=True) as connection:
            row = _round(connection, principal, round_id)
        if row.model_sha256 is None:
            what = "gathers statistics" if row.kind == "statistics" else "asks for parameters"
            way_out = "the moments" if row.kind == "statistics" else "those to begin with"
            raise NotFoundError(
                f"Round {round_id} {what} and has no model; send {way_out}.", name=round_id
            )
        return str(row.model_sha256)

    def before_push(
        self, principal: Principal, round_id: str, sha256: str
    ) -> UpdateReceipt | Ticket:
        """Refuse a push before its body is read, or give the receipt of a repeated one.

        Raises:
            NotFoundError: the site has no such round.
            RoundClosedError: the round is closed, or the run is stopped, completed or failed.
            ConflictError: the site gave this round another update before.
        """
        self.presence.seen(principal.id)
        with reading(self._engine, once=True) as connection:
            row = _round(connection, principal, round_id, PUSHED)
            receipt = _check_open(row, sha256)
            if receipt is not None:
                return receipt
            reported = row.reported if row.kind == "training" else None
            return Ticket(row, plan_of(connection, row.run_id), reported)

    def push(self, principal: Principal, ticket: Ticket, writer: BlobWriter) -> Accepted:
        """Take an update that was received whole and whose digest is right.

        Raises:
            UpdateRejectedError: wrong arrays, values or counts; nothing is kept, and the run's
                stream has the reason.
            NotFoundError, RoundClosedError, ConflictError: as in ``before_push``.
        """
        row, plan = ticket.row, ticket.plan
        expected = None
        if row.kind == "training":
            expected = self._layouts.expected(
                principal.organisation_id, row.model_sha256, plan.strategy
            )
        try:
            checked = check_update(row.kind, plan, writer.content(), expected, ticket.reported)
        except UpdateRejectedError as error:
            self._refused(principal, row, error.message)
            raise
        blob = writer.commit()
        now = timestamp()
        with writing(self._engine) as connection:
            row = _round(connection, principal, row.id, COUNTED_ROUND)
            receipt = _check_open(row, blob.sha256)
            if receipt is not None:
                return Accepted(receipt, row.run_id, complete=False)
            self._blobs.record(connection, principal.organisation_id, blob, now)
            values = {
                "round_id": row.id,
                "principal_id": principal.id,
                "organisation_id": principal.organisation_id,
                "sha256": blob.sha256,
                "size_bytes": blob.size_bytes,
                "sample_count": checked.samples,
                "metrics": checked.metrics,
                "audit": checked.audit,
                "created_at": now,
            }
            connection.execute(ADD, values)
            told: dict[str, Any] = {"number": row.training_number, "kind": row.kind}
            if not hides_cohort(plan):
                told |= {"site": row.site, "size_bytes": blob.size_bytes}
            # The round's query has found the run among the caller's organisation's.
            stream = run_stream(row.run_id)
            append(connection, principal.organisation_id, stream, "update.received", told, now)
            connection.execute(TOUCH, {"run": row.run_id, "now": now})
            asked = len(plan.sites) if row.cohort is None else len(row.cohort)
            complete = row.given + 1 >= asked - len(row.declined or {})
            if complete and not row.declined:  # else the quorum is looked at first
                connection.execute(COMPLETE, {"round": row.id})
        receipt = UpdateReceipt(round_id=row.id, sha256=blob.sha256)
        return Accepted(receipt, row.run_id, complete)

    def state(self, principal: Principal, round_id: str, told: ParticipationUpdate) -> str | None:
        """Note how far a site is; returns the run to advance, if that changes something.

        A site that declines a round is no longer asked in it, and most leave then: it is not
        there for the next one unless it asks again. It stays in a secret cohort: who is in one
        shows nowhere, and absentees count as zero.

        Raises:
            NotFoundError: the site has no such round.
        """
        self.presence.seen(principal.id)
        if not self._is_news(round_id, principal.id):
            return None
        with writing(self._engine) as connection:
            row = _round(connection, principal, round_id, COUNTED_ROUND)
            plan = plan_of(connection, row.run_id)
            now = timestamp()
            if not hides_cohort(plan):
                run = connection.execute(RUN, {"run": row.run_id}).one()
                data = {"site": row.site, "number": row.training_number, **told.model_dump()}
                tell(connection, run, "participation", data, now)
            if (
                told.state != "declined_policy"
                or row.status != "open"
                or row.former is not None
                or row.run_status not in ACTIVE
                or (hides_cohort(plan) and row.kind == "training")
            ):
                return None
            declined = {**(row.declined or {}), principal.id: told.detail or ""}
            connection.execute(
                update(rounds).where(rounds.c.id == round_id).values(declined=declined)
            )
            if row.kind != "evaluation":
                self.presence.left(principal.id)
            return str(row.run_id)

    def _refused(self, principal: Principal, row: Row[Any], reason: str) -> None:
        if not self._is_news(row.id, principal.id):
            return
        with writing(self._engine) as connection:
            run = connection.execute(RUN, {"run": row.run_id}).one()
            hidden = hides_cohort(plan_of(connection, row.run_id))
            told = {"site": None if hidden else row.site, "number": row.training_number}
            tell(connection, run, "update.refused", {**told, "reason": reason}, timestamp())

    def _is_news(self, round_id: str, principal_id: str) -> bool:
        """Whether one more event of this site in this round is due; it cannot flood a stream."""
        key = round_id, principal_id
        count = self._news.pop(key, 0) + 1
        self._news[key] = count
        while len(self._news) > 10_000:
            self._news.pop(next(iter(self._news)), None)
        return count <= _NEWS_LIMIT


def _is_asked(row: Row[Any], principal_id: str) -> bool:
    if principal_id in (row.declined or ()):
        return False
    return row.cohort is None or principal_id in row.cohort


def _assignment(connection: Connection, row: Row[Any], known: Collection[str]) -> Assignment:
    plan = plan_of(connection, row.run_id)
    terms = terms_of(connection, row.run_id, bool(row.with_statistics))
    told = terms.plan
    is_new = terms.sha256 not in known
    deadline = row.deadline_at_s
    # Not validated: every part of it was.
    return Assignment.model_construct(
        round_id=row.round_id,
        run_id=row.run_id,
        run=row.run,
        kind=row.kind,
        number=row.training_number,
        rounds=plan.rounds,
        status=row.status,
        model_sha256=row.model_sha256,
        local=plan.local,
        seed=plan.seed,
        min_site_rows=plan.min_site_rows,
        plan_sha256=terms.sha256,
        deadline_s=None if deadline is None else max(0.0, deadline - time.time()),
        statistics=told.statistics if is_new else None,
        signature=told.signature if is_new else None,
        architecture=told.architecture if is_new else None,
        model=told.model if is_new else None,
        config=told.config if is_new else None,
        strategy=told.strategy if is_new else None,
        filters=told.filters if is_new else None,
        privacy=told.privacy if is_new else None,
    )


def _round(
    connection: Connection, principal: Principal, round_id: str, query: Select[Any] = ROUND
) -> Row[Any]:
    """The round with its run's status, if this site takes part in it."""
    values = {"site": principal.id, "round": round_id, "organisation": principal.organisation_id}
    row = connection.execute(query, values).one_or_none()
    if row is None or not _is_asked(row, principal.id):
        raise NotFoundError(
            f"There is no round {round_id!r} for this site; ask for the assignments again.",
            name=round_id,
        )
    return row


def _check_open(row: Row[Any], sha256: str) -> UpdateReceipt | None:
    if row.former == sha256:
        return UpdateReceipt(round_id=row.id, sha256=sha256, duplicate=True)
    if row.run_status not in ACTIVE:
        way_out = "resume it to go on" if row.run_status == "stopped" else "it takes no updates"
        raise RoundClosedError(f"Run {row.run} is {row.run_status}; {way_out}.")
    if row.former is not None and row.status != "closed":
        raise ConflictError(
            f"Site {row.site!r} gave round {row.training_number} of run {row.run} another update "
            "before; the first one counts."
        )
    if row.status != "open":
        raise RoundClosedError(
            f"Round {row.training_number} of run {row.run} is closed; ask for the assignments "
            "again."
        )
    return None
