"""Workers on this computer, with batches that form by themselves.

There is no timer: while the worker is busy, requests queue; when it is free, all that
queued for the oldest request's version goes to it as one batch. A lone request never waits.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from truststram_lab.exceptions import (
    ConflictError,
    InsufficientResourcesError,
    PlatformError,
    PlatformUnavailableError,
    TrustStramException,
)

from .interface import Answer, BackendEvent, Row, ServedVersion, VersionStatus
from .jobs import (
    Job,
    answer_of,
    batch_message,
    checked,
    fail,
    hopeless,
    load_message,
)
from .process import WorkerDiedError, WorkerProcess

__all__ = ["Counts", "LocalBackend"]

log = logging.getLogger(__name__)

#: Rows in one batch, unless a single request has more.
BATCH_ROWS = 4096

#: Rows that may wait; a request beyond is told to come again.
WAITING_ROWS = 50_000

#: Seconds without an answer to a batch after which the worker counts as stuck.
STUCK_S = 60.0

_STOPPING = "The platform is stopping; ask again in a moment."


@dataclass
class Counts:
    """What the backend did since it was made."""

    requests: int = 0
    batches: int = 0
    largest_batch: int = 0
    workers: int = 0


class LocalBackend:
    """A ``Backend`` of one worker process, started on first use and replaced when it dies.

    Requests that were with a dying worker are asked again once, each by itself, so that one
    that kills workers takes no other with it.
    """

    def __init__(self, *, stuck_s: float = STUCK_S) -> None:
        self._stuck_s = stuck_s
        self._lock = threading.Condition()
        self._queue: deque[Job] = deque()
        self._waiting_rows = 0
        self._open: Counter[str] = Counter()
        self._status: dict[str, VersionStatus] = {}
        self._events: deque[BackendEvent] = deque(maxlen=1000)
        self._sequence = 0
        self._worker: WorkerProcess | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._woken = False
        self._wake_reader, self._wake_writer = os.pipe()
        self.counts = Counts()

    # ------------------------------------------------------------------ the interface

    def apply(self, version: ServedVersion) -> None:
        """Load the version now; see ``Backend.apply``."""
        with self._lock:
            if self._status.get(version.id) == "drained":
                del self._status[version.id]
        self._submit(Job("load", version)).result()

    def status(self, version_id: str) -> VersionStatus:
        """Where the version stands; ``starting`` until it has been loaded."""
        with self._lock:
            return self._status.get(version_id, "starting")

    def predict(
        self,
        version: ServedVersion,
        rows: Sequence[Row],
        *,
        explain: bool = False,
        explain_class: str | None = None,
    ) -> Future[Answer]:
        """Ask for validated rows; see ``Backend.predict``."""
        return self._submit(Job.asking(version, rows, explain, explain_class))

    def drain(self, version_id: str, *, timeout_s: float = 30.0) -> bool:
        """Take no more requests for the version; True once none of them is open."""
        with self._lock:
            if self._status.get(version_id) != "drained":
                self._status[version_id] = "drained"
                self._tell("version.drained", version=version_id)
            return self._lock.wait_for(lambda: not self._open[version_id], timeout_s)

    def delete(self, version_id: str) -> None:
        """Drain the version and free its memory; ``apply`` brings it back."""
        self.drain(version_id)
        with self._lock:
            running = self._worker is not None
        if running:
            self._submit(Job("forget", body=version_id)).result()
        with self._lock:
            self._tell("version.deleted", version=version_id)

    def events(self, after: int = 0) -> list[BackendEvent]:
        """What happened since event ``after``, oldest first; the last 1000 are kept."""
        with self._lock:
            return [event for event in self._events if event.sequence > after]

    def inspect(self) -> dict[str, Any]:
        """The worker's own account: names of its loaded ``modules`` and ``versions``."""
        account: dict[str, Any] = self._submit(Job("inspect")).result()
        return account

    def close(self) -> None:
        """End the worker within about a second; what still waits fails."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._wake()
            thread = self._thread
        if thread is not None:
            thread.join(1.0)
            with self._lock:
                if thread.is_alive() and self._worker is not None:
                    self._worker.kill()
            thread.join()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    # ------------------------------------------------------------------ queueing

    def _submit(self, job: Job) -> Future[Any]:
        version_id = job.version.id if job.version else None
        with self._lock:
            if self._closing:
                raise PlatformUnavailableError(_STOPPING)
            if job.kind == "predict":
                self._admit(job)
            if version_id is not None:
                self._open[version_id] += 1
                job.future.add_done_callback(lambda _: self._release(version_id))
            self._waiting_rows += job.rows
            self._queue.append(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="truststram-serving", daemon=True
                )
                self._thread.start()
            self._wake()
        return job.future

    def _admit(self, job: Job) -> None:
        assert job.version is not None
        if self._status.get(job.version.id) == "drained":
            raise ConflictError(
                f"{job.version.label} takes no more requests; deploy it again or ask another "
                "version."
            )
        if self._queue and self._waiting_rows + job.rows > WAITING_ROWS:
            raise InsufficientResourcesError(
                f"{self._waiting_rows} rows are waiting for a prediction already; try again in "
                "a second.",
                retry_after=1.0,
            )
        self.counts.requests += 1

    def _release(self, version_id: str) -> None:
        with self._lock:
            self._open[version_id] -= 1
            if not self._open[version_id]:
                del self._open[version_id]
                self._lock.notify_all()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            os.write(self._wake_writer, b"!")

    def _take(self) -> list[Job]:
        """The oldest request and all that can go with it."""
        first = self._queue.popleft()
        batch, rows, left = [first], first.rows, deque[Job]()
        for job in self._queue:
            if job.joins(first) and rows + job.rows <= BATCH_ROWS:
                batch.append(job)
                rows += job.rows
            else:
                left.append(job)
        self._queue = left
        self._waiting_rows -= rows
        return batch

    # ------------------------------------------------------------------ the dispatcher

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closing:
                    break
                batch = self._take() if self._queue else []
            if batch:
                self._answer(batch)
            else:
                self._wait()
        if self._worker is not None:
            self._worker.end(grace_s=0.5)
        with self._lock:
            left, self._queue = self._queue, deque()
        for job in left:
            if job.retried or job.future.set_running_or_notify_cancel():
                fail(job, PlatformUnavailableError(_STOPPING))

    def _wait(self) -> None:
        """Until there is something to do; a worker that dies meanwhile is replaced."""
        handles = [self._wake_reader]
        if self._worker is not None:
            handles.append(self._worker.sentinel)
        found = connection.wait(handles)
        if self._wake_reader in found:
            with self._lock:
                os.read(self._wake_reader, 1)
                self._woken = False
            return
        # One that never answered anything would die again and again: wait for a request.
        proven = self._worker is not None and self._worker.answered > 0
        self._bury("the worker ended while idle")
        if proven:
            self._replace()

    def _replace(self) -> None:
        try:
            self._ready_worker()
        except PlatformError as error:
            log.error("no replacement for the prediction worker: %s", error)

    def _ready_worker(self) -> WorkerProcess:
        if self._worker is None:
            worker = WorkerProcess()
            with self._lock:
                self._worker = worker
                self.counts.workers += 1
                self._tell("worker.started", pid=worker.pid)
        return self._worker

    def _bury(self, reason: str) -> None:
        worker = self._worker
        if worker is None:
            return
        with self._lock:
            self._worker = None
            self._tell("worker.died", pid=worker.pid, reason=reason)
        log.warning("prediction worker %d: %s", worker.pid, reason)
        worker.end()

    def _answer(self, batch: list[Job]) -> None:
        # A retried future is running already; others may have been cancelled while waiting.
        jobs = [j for j in batch if j.retried or j.future.set_running_or_notify_cancel()]
        if not jobs:
            return
        try:
            if jobs[0].kind == "predict":
                self._answer_rows(jobs)
            else:
                jobs[0].future.set_result(self._do(jobs[0]))
        except WorkerDiedError as error:
            self._bury(str(error))
            self._retry(jobs)
        except TrustStramException as error:
            for job in jobs:
                fail(job, error)
        except Exception as error:
            # The one thread that serves everybody must outlive a fault of ours.
            log.exception("a batch of predictions failed")
            fault = PlatformError(f"The prediction failed with {type(error).__name__}.")
            fault.__cause__ = error
            for job in jobs:
                fail(job, fault)

    def _retry(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.retried:
                fail(job, hopeless(job))
        again = [job for job in jobs if not job.retried]
        for job in again:
            job.retried = True
        with self._lock:
            closing = self._closing
            self._queue.extendleft(reversed(again))
            self._waiting_rows += sum(job.rows for job in again)
        if not closing:
            self._replace()

    def _do(self, job: Job) -> dict[str, Any]:
        worker = self._ready_worker()
        if job.kind == "load":
            assert job.version is not None
            self._load(worker, job.version)
            return {}
        return checked(worker.ask(json.dumps({"op": job.kind, "id": job.body}), self._stuck_s))

    def _load(self, worker: WorkerProcess, version: ServedVersion) -> None:
        try:
            checked(worker.ask(load_message(version), self._stuck_s))
        except TrustStramException as error:
            with self._lock:
                self._status[version.id] = "failed"
                self._tell("version.failed", version=version.id, reason=error.message)
            raise
        with self._lock:
            if self._status.get(version.id) != "drained":
                self._status[version.id] = "ready"
            self._tell("version.ready", version=version.id)

    def _answer_rows(self, jobs: list[Job]) -> None:
        worker, version = self._ready_worker(), jobs[0].version
        assert version is not None
        message = batch_message(jobs)
        reply = checked(worker.ask(message, self._stuck_s))
        if "unknown" in reply:
            self._load(worker, version)
            reply = checked(worker.ask(message, self._stuck_s))
        with self._lock:
            self.counts.batches += 1
            self.counts.largest_batch = max(self.counts.largest_batch, len(jobs))
        for job, answer in zip(jobs, reply["answers"], strict=True):
            try:
                job.future.set_result(answer_of(checked(answer)))
            except TrustStramException as error:
                fail(job, error)

    def _tell(self, kind: Any, **data: str | int) -> None:
        self._sequence += 1
        self._events.append(BackendEvent(self._sequence, kind, data))
