"""Workers that share a queue, with batches that form by themselves.

There is no timer: while all workers are busy, requests queue; the first that is free takes all
that queued for the oldest request's version as one batch. A lone request never waits.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from truststram_lab.exceptions import InsufficientResourcesError

from .jobs import Job

if TYPE_CHECKING:
    from .member import Member

__all__ = ["Pool"]

log = logging.getLogger(__name__)

#: Bytes of requests in one batch, unless a single request has more.
BATCH_BYTES = 2**20

#: Bytes that may wait; a request beyond is told to come again.
WAITING_BYTES = 64 * 2**20

#: Seconds that a request may wait for a free worker before there are to be more workers.
PATIENCE_S = 0.1

#: Seconds after a worker's start in which what waits says nothing about the load.
SETTLE_S = 1.0

#: Seconds without work after which a worker beyond the minimum ends.
SURPLUS_S = 30.0


class Pool:
    """A queue and the workers on it. Its methods are called with the backend's lock held.

    Args:
        name: of the runtime or of the place.
        runtime: what its workers run.
        make: starts a member.
        may_grow: whether one worker more fits on the computer.
    """

    def __init__(
        self,
        name: str,
        runtime: str,
        minimum: int,
        maximum: int,
        lock: threading.Condition,
        make: Callable[[Pool], Member],
        may_grow: Callable[[Pool], bool],
    ) -> None:
        self.name = name
        self.runtime = runtime
        self.minimum = minimum
        self.maximum = maximum
        self.lock = lock
        self.members: list[Member] = []
        self.idle: list[Member] = []
        self.waiting_bytes = 0
        self.calm_until_s = 0.0
        #: no new member is started, and the members end when the queue is empty
        self.ending = False
        self._make = make
        self._may_grow = may_grow
        self._queue: deque[Job] = deque()

    @property
    def working(self) -> int:
        """Workers that run now."""
        return sum(member.worker is not None for member in self.members)

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return len(self._queue)

    def admit(self, job: Job) -> None:
        """Refuse a request when too much waits already."""
        if self._queue and self.waiting_bytes + job.bytes > WAITING_BYTES:
            raise InsufficientResourcesError(
                f"{len(self._queue)} requests are waiting for a prediction already; try again in "
                "a second.",
                retry_after=1.0,
            )

    def submit(self, job: Job, *, first: bool = False) -> None:
        """Queue a job; at the front if it was taken before."""
        job.waiting_since_s = time.monotonic()
        if first:
            self._queue.appendleft(job)
        else:
            self._queue.append(job)
        self.waiting_bytes += job.bytes
        # Where a member could not start, it is not tried again with every request.
        if not self.members or time.monotonic() > self.calm_until_s:
            self.start(self.minimum)
        self._hand_out()
        self._grow()

    def start(self, count: int) -> None:
        """Have at least so many members."""
        while len(self.members) < count and not self.ending:
            self.members.append(self._make(self))

    def give(self, member: Member, job: Job) -> None:
        """Give a job to one member, before everything that waits."""
        if member in self.idle:
            self.idle.remove(member)
        member.inbox.put([job])

    def next_batch(self, member: Member) -> list[Job] | None:
        """What a free member is to do; None if nothing waits, and it counts as idle then."""
        try:
            return member.inbox.get_nowait()
        except queue.Empty:
            pass
        if self._queue:
            self._grow()
            return self._take()
        if not self.ending:
            self.idle.append(member)
        return None

    def retire(self, member: Member) -> bool:
        """Whether an idle member is one too many; it is one less then."""
        if member not in self.idle or len(self.members) <= self.minimum:
            return False
        self.idle.remove(member)
        self.members.remove(member)
        return True

    def end(self) -> None:
        """Let the members end once the queue is empty; idle ones do now."""
        self.ending = True
        for member in self.idle:
            member.inbox.put([])
        self.idle.clear()

    def abandon(self) -> list[Job]:
        """Everything that waits, taken out."""
        left, self._queue = list(self._queue), deque()
        self.waiting_bytes = 0
        return left

    def _hand_out(self) -> None:
        # The one that was free last goes first: its memory is warm, and others can end.
        while self._queue and self.idle:
            self.idle.pop().inbox.put(self._take())

    def _grow(self) -> None:
        if (
            self._queue
            and not self.idle
            and len(self.members) < self.maximum
            and time.monotonic() - self._queue[0].waiting_since_s > PATIENCE_S
            and time.monotonic() > self.calm_until_s
            and all(member.worker is not None for member in self.members)
            and not self.ending
            and self._may_grow(self)
        ):
            log.info("%s gets worker %d of %d", self.name, len(self.members) + 1, self.maximum)
            self.start(len(self.members) + 1)

    def _take(self) -> list[Job]:
        """The oldest request and all that can go with it."""
        first = self._queue.popleft()
        batch, size, left = [first], first.bytes, deque[Job]()
        for job in self._queue:
            if job.joins(first) and size + job.bytes <= BATCH_BYTES:
                batch.append(job)
                size += job.bytes
            else:
                left.append(job)
        self._queue = left
        self.waiting_bytes -= size
        return batch
