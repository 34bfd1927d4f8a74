"""From the sites' updates to the next round, and from the last round to a model.

Everything a step needs is in the database, so a process that dies anywhere is continued by
the next one: ``advance`` looks at the state and does what is left, as often as it is called.
"""

from __future__ import annotations

import heapq
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from truststram_lab.exceptions import TrustStramException
from truststram_lab.schemas.serving import CreateDeployment
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.tables import rounds, runs

from .closing import Closing, Situation, situation
from .opening import declined_by, declined_words, hides_cohort, open_next, roster, stop_run, wait_of
from .presence import PRESENT_S, Presence
from .status import ACTIVE, set_status, tell

__all__ = ["Advancer", "Deploy"]

log = logging.getLogger(__name__)

#: (organisation id, what and where) -> anything; deploying again what is served changes nothing
Deploy = Callable[[str, CreateDeployment], object]


class Advancer:
    """Does the arithmetic of the rounds on one thread of its own, run by run.

    It wakes itself for the next deadline of any run.
    """

    def __init__(
        self,
        engine: Engine,
        blobs: BlobStore,
        settings: Settings,
        deploy: Deploy,
        presence: Presence | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._deploy = deploy
        self._presence = presence or Presence()
        self._closing = Closing(engine, blobs, self._presence, settings.version)
        self._lock = threading.Lock()
        self._queued: dict[str, Future[None]] = {}
        self._working = False
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        #: (when, run id), in seconds of the epoch; only the thread touches it
        self._due: list[tuple[float, str]] = []
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
        while True:
            try:
                run_id = self._queue.get(timeout=self._pause())
            except queue.Empty:
                self._submit_due()
                continue
            if run_id is None:
                return
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

    def _pause(self) -> float | None:
        if not self._due:
            return None
        # An hour at most: the clock of the epoch may be set while this waits.
        return min(3600.0, max(0.0, self._due[0][0] - time.time()))

    def _submit_due(self) -> None:
        now = time.time()
        while self._due and self._due[0][0] <= now:
            self.submit(heapq.heappop(self._due)[1])

    def _wake_at(self, when_s: float | None, run_id: str) -> None:
        if when_s is not None and (when_s, run_id) not in self._due:
            heapq.heappush(self._due, (when_s, run_id))

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
            found = situation(connection, run_id)
        if found is None or found.run.status not in ACTIVE:
            return False
        if found.finished:
            self._complete(found)
            return False
        last = found.round
        if last is None or last.status == "closed":
            return self._open(found)
        if last.status == "aggregating":
            return self._closing.close(found)
        if len(found.updates) >= _asked(found, last):
            return self._settle(found, last)
        late = last.deadline_at_s is not None and last.deadline_at_s <= time.time()
        if late or (last.kind == "initial" and not self._is_coming(found, last)):
            return self._settle(found, last)
        self._wake_at(last.deadline_at_s, run_id)
        return False

    def _open(self, found: Situation) -> bool:
        with writing(self._engine) as connection:
            now = timestamp()
            run = _active(connection, found.run.id)
            if run is None:
                return False
            until = run.waiting_until_s
            opened = open_next(connection, run, found.plan, self._presence, now)
            if opened == "waiting" and until is not None and until <= time.time():
                stop_run(connection, run, now, self._too_few(connection, found))
                return False
            if opened == "waiting":
                known = select(runs.c.waiting_until_s).where(runs.c.id == run.id)
                self._wake_at(connection.execute(known).scalar_one(), run.id)
        return opened == "opened"

    def _is_coming(self, found: Situation, last: Row[Any]) -> bool:
        """Whether the site that was asked to begin is still there, or nobody else is."""
        if found.plan.simulated or not last.cohort:
            return bool(last.cohort)
        self._wake_at(time.time() + PRESENT_S, found.run.id)
        return bool(self._presence.present(last.cohort)) and not (last.declined or {})

    def _settle(self, found: Situation, last: Row[Any]) -> bool:
        """The round takes no more updates: close it, or do without, or stop the run."""
        with writing(self._engine) as connection:
            now = timestamp()
            run = _active(connection, found.run.id)
            # What came in since the first look counts.
            fresh = situation(connection, found.run.id)
            if run is None or fresh is None or fresh.round is None or fresh.round.id != last.id:
                return False
            if fresh.round.status != "open":
                return True
            given, asked = len(fresh.updates), _asked(fresh, fresh.round)
            if not given and last.kind == "initial":
                return self._ask_another(connection, fresh, fresh.round, now)
            if given < _sufficient(fresh, asked):
                stop_run(connection, run, now, _insufficient(connection, fresh, fresh.round))
                return False
            if not given and last.kind == "training" and not _may_be_empty(fresh):
                stop_run(connection, run, now, _insufficient(connection, fresh, fresh.round))
                return False
            connection.execute(
                update(rounds).where(rounds.c.id == last.id).values(status="aggregating")
            )
        return True

    def _ask_another(
        self, connection: Connection, found: Situation, last: Row[Any], now: str
    ) -> bool:
        """The site that was asked to begin does not: close its round without a result."""
        values = {"status": "closed", "closed_at": now}
        connection.execute(update(rounds).where(rounds.c.id == last.id).values(**values))
        tell(connection, found.run, "round.closed", {"number": 0, "weights_sha256": None}, now)
        return True

    def _too_few(self, connection: Connection, found: Situation) -> str:
        sites = roster(connection, found.run.id, found.plan)
        there = self._presence.present([site.principal_id for site in sites])
        needed = found.plan.quorum.min_available
        if found.round is not None:
            needed = max(found.plan.quorum.min_fit, found.plan.strategy.least_updates)
        declined = declined_by(connection, found.run.id, "statistics", "training")
        gone = [site for site in sites if site.principal_id not in there]
        names = [site.name for site in gone if site.principal_id not in declined]
        missing = f", missing: {_listed(names)}" if names else ""
        by_id = {site.principal_id: site.name for site in gone}
        missing += declined_words(by_id, {one: declined[one] for one in by_id if one in declined})
        waited = wait_of(connection, found.run.id, found.plan)
        after = "" if waited is None else f" after {waited:g} s"
        return (
            f"insufficient_sites: {len(there)} of {needed} sites were there{after}{missing}; "
            "resume the run when they are."
        )

    def _complete(self, found: Situation) -> None:
        """Deploy the registered version where results are deployed, and end the run."""
        run = found.run
        deployed, reason = False, None
        here = self._settings.environment == "sandbox" and run.plan.get("deploy", True)
        if here and run.model_version is not None:
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
            if _active(connection, run.id) is None:
                return
            set_status(connection, run, "completed", now, deployed=deployed, reason=reason)
            told = {"model": run.model, "version": run.model_version}
            tell(connection, run, "run.completed", told, now)

    def _fail(self, run_id: str, reason: str) -> None:
        with writing(self._engine) as connection:
            run = _active(connection, run_id)
            if run is not None:
                now = timestamp()
                set_status(connection, run, "failed", now, reason=reason)
                tell(connection, run, "run.failed", {"reason": reason}, now)


def _active(connection: Connection, run_id: str) -> Row[Any] | None:
    run = connection.execute(select(runs).where(runs.c.id == run_id)).one()
    return run if run.status in ACTIVE else None


def _asked(found: Situation, last: Row[Any]) -> int:
    everybody = len(found.plan.sites) if last.cohort is None else len(last.cohort)
    return everybody - len(last.declined or {})


def _sufficient(found: Situation, asked: int) -> int:
    """How many updates the round needs at its deadline."""
    plan = found.plan
    assert found.round is not None
    if found.round.kind == "evaluation":
        return 0
    if plan.central_privacy is not None and found.round.kind == "training":
        return plan.quorum.min_updates or 0
    least = plan.strategy.least_updates if found.round.kind == "training" else 1
    least = max(least, 1)
    declined = len(found.round.declined or {})
    if declined and found.round.kind == "training":
        # Who declines is not waited for, but does not make the quorum smaller either.
        least = max(least, min(plan.quorum.min_fit, asked + declined))
    enough = plan.quorum.min_updates
    return max(least, asked if enough is None else min(enough, asked + declined))


def _may_be_empty(found: Situation) -> bool:
    # That a round of a secret sample was empty is a secret, too; that all decline is none.
    assert found.round is not None
    return found.plan.central_privacy is not None and (
        hides_cohort(found.plan) or not found.round.declined
    )


def _insufficient(connection: Connection, found: Situation, last: Row[Any]) -> str:
    given = {row.principal_id for row in found.updates}
    declined = last.declined or {}
    sites = {s.principal_id: s.name for s in roster(connection, found.run.id, found.plan)}
    asked = list(sites) if last.cohort is None else last.cohort
    missing = [sites[one] for one in asked if one not in given and one not in declined]
    text = (
        f"insufficient_updates: {len(given)} of {len(asked)} came in round {last.training_number}"
    )
    if missing:
        text += f", missing: {_listed(missing)}"
    return f"{text}{declined_words(sites, declined)}; resume the run when they are back."


def _listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
