"""One member of a pool: a thread, and the worker process that it asks."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import PlatformError, PlatformUnavailableError, TrustStramException

from . import pool as pools
from .jobs import Job, answers, batch_header, checked, fail, hopeless, load_header, unforeseen
from .process import WorkerDiedError, WorkerProcess

if TYPE_CHECKING:
    from .interface import ServedVersion
    from .local import LocalBackend
    from .pool import Pool

__all__ = ["STOPPING", "Member"]

log = logging.getLogger(__name__)

STOPPING = "The platform is stopping; ask again in a moment."


class Member:
    """Takes batches and answers them; replaces its worker when that dies.

    Requests that were with a dying worker are asked again once, each by itself, by whichever
    member is free, so that one that kills workers takes no other with it.
    """

    def __init__(self, backend: LocalBackend, pool: Pool) -> None:
        self._backend = backend
        self.pool = pool
        #: batches for this member alone; an empty one only wakes it
        self.inbox: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
        self.worker: WorkerProcess | None = None
        #: set by the watch: the worker hung up while nobody asked it
        self.lost = False
        self.thread = threading.Thread(
            target=self._run, name=f"truststram-serving-{pool.name}", daemon=True
        )
        self.thread.start()

    def _run(self) -> None:
        try:
            while (batch := self._next()) is not None:
                if batch:
                    self._answer(batch)
        finally:
            if self.worker is not None:
                self._backend.unwatch(self.worker)
                self.worker.end()
            with self.pool.lock:
                if self in self.pool.members:
                    self.pool.members.remove(self)
            while not self.inbox.empty():
                for job in self.inbox.get():
                    fail(job, PlatformUnavailableError(STOPPING))

    def _next(self) -> list[Job] | None:
        """The next batch, empty if there was only something to look at; None: end."""
        if self.worker is None or self.lost:
            self._renew()
        with self.pool.lock:
            if self._backend.closing or self._leaves():
                return None
            found = self.pool.next_batch(self)
            if found is not None:
                return found
            if self.pool.ending:
                return None
            surplus = len(self.pool.members) > self.pool.minimum
        try:
            return self.inbox.get(timeout=pools.SURPLUS_S if surplus else None)
        except queue.Empty:
            with self.pool.lock:
                if not self.pool.retire(self):
                    if self in self.pool.idle:
                        self.pool.idle.remove(self)
                    return []
                assert self.worker is not None
                self._backend.tell("worker.ended", pid=self.worker.pid, pool=self.pool.name)
            return None

    def _leaves(self) -> bool:
        """Whether it has no worker while others of the pool do: these answer what waits."""
        if self.worker is not None or not self.inbox.empty():
            return False
        if not any(other.worker is not None for other in self.pool.members):
            return False
        self.pool.members.remove(self)
        self.pool.calm_until_s = time.monotonic() + pools.SETTLE_S
        return True

    def _renew(self) -> None:
        """Start a worker; in the place of one that died, if it ever answered.

        One that never answered anything would die again and again: wait for a request.
        """
        proven = self.worker is None or self.worker.answered > 0
        if self.lost:
            self._bury("the worker ended while idle")
        if not proven:
            return
        try:
            self._ready()
        except PlatformUnavailableError:
            return  # it is closing
        except PlatformError as error:
            log.error("no worker for %s: %s", self.pool.name, error)

    def _ready(self) -> WorkerProcess:
        if self.worker is None:
            if self._backend.closing:
                raise PlatformUnavailableError(STOPPING)
            worker = WorkerProcess(self._backend.nursery(self.pool.runtime))
            with self.pool.lock:
                self.worker = worker
                self.pool.calm_until_s = time.monotonic() + pools.SETTLE_S
                self._backend.counts.workers += 1
                self._backend.tell("worker.started", pid=worker.pid, pool=self.pool.name)
            self._backend.watch(worker, self)
        return self.worker

    def _bury(self, reason: str) -> None:
        worker, self.lost = self.worker, False
        if worker is None:
            return
        self._backend.unwatch(worker)
        with self.pool.lock:
            self.worker = None
            self._backend.tell("worker.died", pid=worker.pid, pool=self.pool.name, reason=reason)
        log.warning("prediction worker %d: %s", worker.pid, reason)
        worker.end()

    def _answer(self, batch: list[Job]) -> None:
        # A retried future is running already; others may have been cancelled while waiting.
        jobs = [j for j in batch if j.retried or j.future.set_running_or_notify_cancel()]
        if not jobs:
            return
        try:
            if jobs[0].kind == "predict":
                self._predict(jobs)
            else:
                jobs[0].future.set_result(self._do(jobs[0]))
        except WorkerDiedError as error:
            self._bury(str(error))
            self._retry(jobs)
        except TrustStramException as error:
            for job in jobs:
                fail(job, error)
        except Exception as error:
            # The thread must outlive a fault of ours.
            log.exception("a batch of predictions failed")
            for job in jobs:
                fail(job, unforeseen(error))

    def _retry(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.retried:
                fail(job, hopeless(job))
        with self.pool.lock:
            for job in reversed([job for job in jobs if not job.retried]):
                job.retried = True
                self.pool.submit(job, first=True)

    def _ask(self, header: dict[str, Any], bodies: list[bytes] | None = None) -> Any:
        return self._ready().ask(header, bodies or [], timeout_s=self._backend.stuck_s)

    def _do(self, job: Job) -> Any:
        if job.kind == "load":
            assert job.version is not None
            self._load(job.version)
            return self._ready().pid
        header, _ = self._ask({"op": job.kind, "id": job.subject})
        return checked(header)

    def _load(self, version: ServedVersion) -> None:
        try:
            checked(self._ask(load_header(version))[0])
        except TrustStramException as error:
            self._backend.mark(version, "failed", "version.failed", reason=error.message)
            raise
        self._backend.mark(version, "ready", "version.ready")

    def _predict(self, jobs: list[Job]) -> None:
        version = jobs[0].version
        assert version is not None
        question, bodies = batch_header(jobs), [j.question.body for j in jobs if j.question]
        started_s = time.perf_counter()
        header, answered = self._ask(question, bodies)
        if "unknown" in checked(header):
            self._load(version)
            header, answered = self._ask(question, bodies)
        found = answers(checked(header), answered)
        self._backend.count(len(jobs), time.perf_counter() - started_s)
        for job, answer in zip(jobs, found, strict=True):
            job.future.set_result(answer)
