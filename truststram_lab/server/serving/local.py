"""Workers on this computer: shared ones for each runtime, and deployments' own."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from truststram_lab.exceptions import (
    ConfigurationError,
    ConflictError,
    PlatformUnavailableError,
    TrustStramException,
)

from .interface import (
    Answer,
    BackendEvent,
    Conversion,
    Load,
    Place,
    PoolLoad,
    Question,
    ServedVersion,
    VersionStatus,
)
from .jobs import Job, checked, fail, load_header
from .member import STOPPING, Member
from .nursery import Nursery
from .pool import Pool
from .process import WorkerDiedError, WorkerProcess
from .resources import check_fits, core_count, own_bytes, room
from .watch import Watch

__all__ = ["Counts", "LocalBackend"]

log = logging.getLogger(__name__)

#: Seconds without an answer to a batch after which the worker counts as stuck.
STUCK_S = 60.0

#: Seconds for converting an estimator and comparing it split by split.
_CONVERT_S = 300.0

#: what is not installed with the platform -> the runtime that needs it
_PACKAGES = {"skops": "sklearn", "onnxruntime": "onnx"}

#: Seconds that a batch in work has to end when the backend is closed.
_GRACE_S = 1.0


@dataclass
class Counts:
    """What the backend did since it was made."""

    requests: int = 0
    batches: int = 0
    largest_batch: int = 0
    workers: int = 0
    busy_s: float = 0.0


class LocalBackend:
    """A ``Backend`` of processes that are started on first use and replaced when they die.

    Args:
        stuck_s: seconds without an answer after which a worker is replaced.
        most: shared workers of one runtime under load; None is one a core.
    """

    def __init__(self, *, stuck_s: float = STUCK_S, most: int | None = None) -> None:
        self.stuck_s = stuck_s
        self._most = most or max(1, int(core_count()))
        self._lock = threading.Condition()
        self._pools: dict[str, Pool] = {}
        self._released: set[str] = set()
        self._leaving: list[Pool] = []
        self._open: Counter[str] = Counter()
        self._status: dict[str, VersionStatus] = {}
        self._events: deque[BackendEvent] = deque(maxlen=1000)
        self._sequence = 0
        self._nurseries: dict[str, Nursery] = {}
        self._watch = Watch()
        self._worker_bytes: dict[str, int] = {}
        self.closing = False
        self.counts = Counts()

    # ------------------------------------------------------------------ the interface

    def apply(self, version: ServedVersion) -> None:
        """Load the version now; see ``Backend.apply``."""
        with self._lock:
            if self._status.get(version.id) == "drained":
                del self._status[version.id]
            pool = self._pool_of(version, alone=True)
        try:
            pid = self._submit(pool, Job("load", version)).result()
            if version.place is not None:
                self._fill(pool, version, pid)
        except TrustStramException:
            if version.place is not None:
                self.release(version.place.id)
            raise

    def check_room(self, label: str, place: Place) -> None:
        """Refuse what cannot fit; see ``Backend.check_room``."""
        with self._lock:
            check_fits(label, place.minimum, self._running(), 0)

    def convert(self, version: ServedVersion) -> Conversion:
        """In a process of its own that ends afterwards; see ``Backend.convert``."""
        nursery = self.nursery("sklearn")
        try:
            worker = WorkerProcess(nursery)
            try:
                question = load_header(version, "convert")
                header, bodies = worker.ask(question, timeout_s=_CONVERT_S)
            finally:
                worker.end()
        except WorkerDiedError as error:
            return Conversion(
                "sklearn", f"Served by scikit-learn itself: while it was converted, {error}"
            )
        finally:
            with self._lock:
                needed = any(pool.runtime == "sklearn" for pool in self._pools.values())
            if not needed:
                nursery.close()
        found = checked(header)
        return Conversion(found["runtime"], found["reason"], bodies[0] if bodies else None)

    def release(self, place: str) -> None:
        """Let a place's workers finish what they have and end; see ``Backend.release``."""
        with self._lock:
            self._released.add(place)
            pool = self._pools.pop(place, None)
            if pool is not None:
                pool.end()
                self._leaving = [one for one in self._leaving if one.members] + [pool]

    def status(self, version_id: str) -> VersionStatus:
        """Where the version stands; ``starting`` until it has been loaded."""
        with self._lock:
            return self._status.get(version_id, "starting")

    def workers(self, place: str) -> int:
        """How many workers the place has now; 0 before it is asked."""
        with self._lock:
            pool = self._pools.get(place)
            return pool.working if pool else 0

    def predict(self, version: ServedVersion, question: Question) -> Future[Answer]:
        """Ask; see ``Backend.predict``."""
        with self._lock:
            pool = self._pool_of(version)
            return self._submit(pool, Job("predict", version, question))

    def drain(self, version_id: str, *, timeout_s: float = 30.0) -> bool:
        """Take no more requests for the version; True once none of them is open."""
        with self._lock:
            if self._status.get(version_id) != "drained":
                self._status[version_id] = "drained"
                self.tell("version.drained", version=version_id)
            return self._lock.wait_for(lambda: not self._open[version_id], timeout_s)

    def delete(self, version_id: str) -> None:
        """Drain the version and free its memory; ``apply`` brings it back."""
        self.drain(version_id)
        waiting = []
        with self._lock:
            for pool in self._pools.values():
                for member in pool.members:
                    job = Job("forget", subject=version_id)
                    waiting.append(job.future)
                    pool.give(member, job)
        for future in waiting:
            future.result()
        with self._lock:
            self.tell("version.deleted", version=version_id)

    def load(self) -> Load:
        """What it does now; see ``Backend.load``."""
        with self._lock:
            pools = [
                PoolLoad(pool.name, pool.runtime, pool.working, pool.waiting)
                for pool in self._pools.values()
            ]
            counts = self.counts
            return Load(pools, counts.requests, counts.batches, counts.busy_s, counts.workers)

    def events(self, after: int = 0) -> list[BackendEvent]:
        """What happened since event ``after``, oldest first; the last 1000 are kept."""
        with self._lock:
            return [event for event in self._events if event.sequence > after]

    def inspect(self, runtime: str = "network") -> dict[str, Any]:
        """A shared worker's own account: names of its loaded ``modules`` and ``versions``."""
        with self._lock:
            pool = self._pool(runtime, Place(runtime, 1, self._most), runtime)
        account: dict[str, Any] = self._submit(pool, Job("inspect")).result()
        return account

    def close(self) -> None:
        """End the workers within about a second; what still waits fails."""
        with self._lock:
            if self.closing:
                return
            self.closing = True
            pools = [*self._pools.values(), *self._leaving]
            left = [job for pool in pools for job in pool.abandon()]
            members = [member for pool in pools for member in pool.members]
            for pool in pools:
                pool.end()
        for job in left:
            if job.retried or job.future.set_running_or_notify_cancel():
                fail(job, PlatformUnavailableError(STOPPING))
        deadline_s = time.monotonic() + _GRACE_S
        for member in members:
            member.thread.join(max(0.0, deadline_s - time.monotonic()))
            if member.thread.is_alive() and member.worker is not None:
                member.worker.kill()
            member.thread.join()
        with self._lock:
            # What a dying worker gave back meanwhile.
            left = [job for pool in pools for job in pool.abandon()]
        for job in left:
            fail(job, PlatformUnavailableError(STOPPING))
        self._watch.close()
        for nursery in self._nurseries.values():
            nursery.close()

    # ------------------------------------------------------------------ for its members

    def nursery(self, runtime: str) -> Nursery:
        """Where workers of a runtime come from."""
        for package, needed_by in _PACKAGES.items():
            if needed_by == runtime and find_spec(package) is None:
                raise ConfigurationError(
                    f"Serving this model needs the package {package}, which the platform's "
                    "environment lacks; run pip install 'truststram-lab[models]' there."
                )
        with self._lock:
            return self._nurseries.setdefault(runtime, Nursery(runtime))

    def watch(self, worker: WorkerProcess, member: Member) -> None:
        """Wake the member if its worker ends while it is idle."""

        def died() -> None:
            with self._lock:
                member.lost = member.worker is worker
                if member in member.pool.idle:
                    member.pool.idle.remove(member)
                    member.inbox.put([])

        self._watch.add(worker, died)

    def unwatch(self, worker: WorkerProcess) -> None:
        """Its end is expected."""
        self._watch.remove(worker)

    def count(self, requests: int, took_s: float) -> None:
        """A batch of so many requests was answered."""
        with self._lock:
            self.counts.batches += 1
            self.counts.busy_s += took_s
            self.counts.largest_batch = max(self.counts.largest_batch, requests)

    def mark(self, version: ServedVersion, status: VersionStatus, kind: Any, **data: str) -> None:
        """Where a version stands since a worker tried to load it."""
        with self._lock:
            if status != "ready" or self._status.get(version.id) != "drained":
                self._status[version.id] = status
            self.tell(kind, version=version.id, **data)

    def tell(self, kind: Any, **data: str | int) -> None:
        """Note an event; with the lock held."""
        self._sequence += 1
        self._events.append(BackendEvent(self._sequence, kind, data))

    # ------------------------------------------------------------------ queueing

    def _submit(self, pool: Pool, job: Job) -> Future[Any]:
        version_id = job.version.id if job.version else None
        with self._lock:
            if self.closing:
                raise PlatformUnavailableError(STOPPING)
            if job.kind == "predict":
                self._admit(pool, job)
            if version_id is not None:
                self._open[version_id] += 1
                job.future.add_done_callback(lambda _: self._closed(version_id))
            pool.submit(job)
        return job.future

    def _admit(self, pool: Pool, job: Job) -> None:
        assert job.version is not None
        if self._status.get(job.version.id) == "drained":
            raise ConflictError(
                f"{job.version.label} takes no more requests; deploy it again or ask another "
                "version."
            )
        pool.admit(job)
        self.counts.requests += 1

    def _closed(self, version_id: str) -> None:
        with self._lock:
            self._open[version_id] -= 1
            if not self._open[version_id]:
                del self._open[version_id]
                self._lock.notify_all()

    # ------------------------------------------------------------------ pools

    def _pool_of(self, version: ServedVersion, *, alone: bool = False) -> Pool:
        """The pool that answers for a version.

        Args:
            alone: start one member of its place only; the others follow once it was measured.
        """
        place = version.place
        if place is None or place.id in self._released:
            shared = Place(version.runtime, 1, self._most)
            return self._pool(version.runtime, shared, version.runtime)
        return self._pool(place.id, place, version.runtime, minimum=1 if alone else None)

    def _pool(self, name: str, place: Place, runtime: str, *, minimum: int | None = None) -> Pool:
        found = self._pools.get(name)
        if found is None:
            found = self._pools[name] = Pool(
                name,
                runtime,
                place.minimum if minimum is None else minimum,
                place.maximum,
                self._lock,
                lambda pool: Member(self, pool),
                self._may_grow,
            )
        return found

    def _fill(self, pool: Pool, version: ServedVersion, pid: int) -> None:
        """Bring a place to its minimum, if that fits, each worker with the version loaded."""
        place = version.place
        assert place is not None
        each = self._worker_bytes[pool.runtime] = own_bytes(pid)
        with self._lock:
            missing = place.minimum - len(pool.members)
            check_fits(version.label, missing, self._running(), each)
            pool.minimum = place.minimum
            known = list(pool.members)
            pool.start(place.minimum)
            jobs = [Job("load", version) for _ in range(len(pool.members) - len(known))]
            for member, job in zip(pool.members[len(known) :], jobs, strict=True):
                pool.give(member, job)
        for job in jobs:
            job.future.result()

    def _running(self) -> int:
        return sum(len(pool.members) for pool in self._pools.values())

    def _may_grow(self, pool: Pool) -> bool:
        each = self._worker_bytes.get(pool.runtime)
        if each is None:
            pids = [member.worker.pid for member in pool.members if member.worker is not None]
            each = self._worker_bytes[pool.runtime] = own_bytes(pids[0])
        return room(self._running(), each) > 0
