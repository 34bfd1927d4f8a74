"""From the sites' updates to the next round, and from the last round to a model.

Everything a step needs is in the database, so a process that dies anywhere is continued by
the next one: ``advance`` looks at the state and does what is left, as often as it is called.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, and_, select, update

from truststram_lab.exceptions import TrustStramException
from truststram_lab.schemas.federation import CreateRun
from truststram_lab.schemas.registry import CreateVersion, Lineage
from truststram_lab.schemas.serving import CreateDeployment
from truststram_lab.schemas.tables import Statistics
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores.blobs import Blob, BlobStore
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import federations, rounds, run_sites, runs, updates

from .registry import find_or_create_model, register_version
from .runs import ACTIVE, open_round, set_status, tell

if TYPE_CHECKING:
    from truststram_lab.learning.weights import State

__all__ = ["Advancer", "Deploy"]

log = logging.getLogger(__name__)

#: (organisation id, what and where) -> anything; deploying again what is served changes nothing
Deploy = Callable[[str, CreateDeployment], object]


@dataclass(frozen=True)
class _Situation:
    run: Row[Any]
    round: Row[Any]
    updates: list[Row[Any]]
    plan: CreateRun


class Advancer:
    """Does the arithmetic of the rounds on one thread of its own, run by run."""

    def __init__(
        self, engine: Engine, blobs: BlobStore, settings: Settings, deploy: Deploy
    ) -> None:
        self._engine = engine
        self._blobs = blobs
        self._settings = settings
        self._deploy = deploy
        self._lock = threading.Lock()
        self._queued: dict[str, Future[None]] = {}
        self._working = False
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # A daemon: closing must not wait for a long sum, which the next start repeats.
        self._thread = threading.Thread(target=self._work, name="advancer", daemon=True)

    def start(self) -> None:
        """Go on with every run that was left unfinished, and wait for more."""
        self._thread.start()
        with reading(self._engine) as connection:
            unfinished = connection.execute(
                select(runs.c.id).where(runs.c.status.in_(ACTIVE)).order_by(runs.c.created_at)
            ).scalars()
            for run_id in unfinished:
                self.submit(run_id)

    def close(self) -> None:
        """Take no more work."""
        self._queue.put(None)

    @property
    def busy(self) -> bool:
        """Whether a run has its turn, or waits for it."""
        return self._working or bool(self._queued)

    def submit(self, run_id: str) -> Future[None]:
        """Advance the run soon; the future is done when that turn is over."""
        with self._lock:
            waiting = self._queued.get(run_id)
            if waiting is None:
                waiting = self._queued[run_id] = Future()
                self._queue.put(run_id)
            return waiting

    def _work(self) -> None:
        while (run_id := self._queue.get()) is not None:
            with self._lock:
                # Taken out before the look at the state: who submits now gets another turn.
                waiting = self._queued.pop(run_id)
                self._working = True
            wanted = waiting.set_running_or_notify_cancel()
            try:
                self.advance(run_id)
            except Exception:
                # The next assignment poll of any of its sites submits the run again.
                log.exception("run %s could not be advanced", run_id)
            self._working = False
            if wanted:
                waiting.set_result(None)

    def advance(self, run_id: str) -> None:
        """Do everything that can be done for the run now; nothing if nothing can."""
        try:
            while self._step(run_id):
                pass
        except TrustStramException as error:
            self._fail(run_id, error.message)
        except Exception:
            request_id = new_id("req")
            log.exception("run %s failed (%s)", run_id, request_id)
            self._fail(
                run_id, f"The platform could not aggregate; its log has the reason ({request_id})."
            )

    def _step(self, run_id: str) -> bool:
        with reading(self._engine) as connection:
            found = _situation(connection, run_id)
        if found is None or found.run.status not in ACTIVE:
            return False
        if found.run.model_version is not None:
            self._complete(found)
            return False
        if len(found.updates) < len(found.plan.sites):
            return False
        if found.round.kind == "statistics":
            return self._close_statistics(found)
        return self._close_training(found)

    def _close_statistics(self, found: _Situation) -> bool:
        from truststram_lab.learning.statistics import merge_moments

        statistics = merge_moments(
            list(self._states(found)), found.plan.signature, found.plan.min_site_rows
        )
        with writing(self._engine) as connection:
            now = timestamp()
            if not _close(connection, found, None, now):
                return False
            set_status(
                connection,
                found.run,
                "training",
                now,
                statistics=statistics.model_dump(mode="json"),
            )
            tell(connection, found.run, "run.status", {"status": "training"}, now)
            open_round(connection, found.run, 1, found.plan.initial_weights_sha256, now)
        return True

    def _close_training(self, found: _Situation) -> bool:
        blob = self._aggregate(found)
        number = found.round.number
        with writing(self._engine) as connection:
            now = timestamp()
            if not _close(connection, found, blob.sha256, now):
                return False
            self._blobs.record(connection, found.run.organisation_id, blob, now)
            if number < found.plan.rounds:
                open_round(connection, found.run, number + 1, blob.sha256, now)
            else:
                _register(connection, found, blob, self._settings.version, now)
        return True

    def _aggregate(self, found: _Situation) -> Blob:
        import numpy as np

        from truststram_lab.learning import weights
        from truststram_lab.learning.strategies import fed_avg

        mean = fed_avg(self._states(found), [row.sample_count for row in found.updates])
        content = self._blobs.map(found.run.organisation_id, found.round.model_sha256)
        with np.errstate(over="ignore", invalid="ignore"):
            state = weights.apply(weights.decode(content)[0], mean)
        if not all(bool(np.isfinite(array).all()) for array in state.values()):
            raise TrustStramException(
                f"The weights after round {found.round.number} are not finite; start a run with a "
                "lower learning rate."
            )
        return self._blobs.put(found.run.organisation_id, weights.encode(state))

    def _states(self, found: _Situation) -> Iterator[State]:
        """The updates in the plan's order, one at a time."""
        from truststram_lab.learning import weights

        for row in found.updates:
            yield weights.decode(self._blobs.map(found.run.organisation_id, row.sha256))[0]

    def _complete(self, found: _Situation) -> None:
        """Deploy the registered version where results are deployed, and end the run."""
        run = found.run
        deployed, reason = False, None
        if self._settings.environment == "sandbox":
            ref = f"{run.model}:{run.model_version}"
            request = CreateDeployment(model=ref, environment=self._settings.environment)
            try:
                self._deploy(run.organisation_id, request)
                deployed = True
            except TrustStramException as error:
                reason = f"{ref} is registered but not deployed: {error.message}"
                log.warning("%s", reason)
        with writing(self._engine) as connection:
            now = timestamp()
            if _status(connection, run.id) not in ACTIVE:
                return
            set_status(connection, run, "completed", now, deployed=deployed, reason=reason)
            told = {"model": run.model, "version": run.model_version}
            tell(connection, run, "run.completed", told, now)

    def _fail(self, run_id: str, reason: str) -> None:
        with writing(self._engine) as connection:
            run = connection.execute(
                select(runs).where(runs.c.id == run_id).with_for_update()
            ).one()
            if run.status in ACTIVE:
                now = timestamp()
                set_status(connection, run, "failed", now, reason=reason)
                tell(connection, run, "run.failed", {"reason": reason}, now)


def _situation(connection: Connection, run_id: str) -> _Situation | None:
    run = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    if run is None:
        return None
    last = connection.execute(
        select(rounds).where(rounds.c.run_id == run_id).order_by(rounds.c.number.desc()).limit(1)
    ).one()
    given = connection.execute(
        select(updates)
        .join(
            run_sites,
            and_(
                run_sites.c.run_id == run_id,
                run_sites.c.principal_id == updates.c.principal_id,
            ),
        )
        .where(updates.c.round_id == last.id)
        .order_by(run_sites.c.position)
    ).all()
    return _Situation(run, last, list(given), CreateRun.model_validate(run.plan))


def _status(connection: Connection, run_id: str) -> str:
    query = select(runs.c.status).where(runs.c.id == run_id).with_for_update()
    return str(connection.execute(query).scalar_one())


def _close(connection: Connection, found: _Situation, weights_sha256: str | None, now: str) -> bool:
    """Close the round; False if the run was stopped, or the round closed, in the meantime."""
    if _status(connection, found.run.id) not in ACTIVE:
        return False
    closed = connection.execute(
        update(rounds)
        .where(rounds.c.id == found.round.id, rounds.c.status != "closed")
        .values(status="closed", result_sha256=weights_sha256, closed_at=now)
    ).rowcount
    if not closed:
        return False
    connection.execute(update(runs).where(runs.c.id == found.run.id).values(updated_at=now))
    told = {"number": found.round.number, "weights_sha256": weights_sha256}
    tell(connection, found.run, "round.closed", told, now)
    return True


def _register(
    connection: Connection, found: _Situation, blob: Blob, code_version: str, now: str
) -> None:
    run, plan = found.run, found.plan
    federation = connection.execute(
        select(federations.c.name).where(federations.c.id == run.federation_id)
    ).scalar_one()
    model = find_or_create_model(connection, run.organisation_id, plan.model, now)
    request = CreateVersion(
        weights_sha256=blob.sha256,
        architecture=plan.architecture,
        signature=plan.signature,
        statistics=Statistics.model_validate(run.statistics),
        lineage=Lineage(
            federation=federation,
            run=run.name,
            rounds=plan.rounds,
            data_sha256=plan.source.sha256 if plan.source is not None else None,
            code_version=code_version,
        ),
    )
    version = register_version(connection, model, request, blob.size_bytes, now)
    connection.execute(
        update(runs).where(runs.c.id == run.id).values(model_version=version.sequence)
    )
