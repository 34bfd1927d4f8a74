"""The thread on which a participant waits, trains and sends; outbound calls only."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from truststram_lab.exceptions import (
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RequestTimeoutError,
    TrustStramException,
)
from truststram_lab.learning.training import Stopped
from truststram_lab.schemas.federation import Assignment, RoundKind, RoundPlan, UpdateReceipt
from truststram_lab.schemas.participation import ParticipationState, ParticipationUpdate

from . import machine as steps
from .machine import Machine, Patience, Step, Steps
from .outbox import Outbox, Parcel
from .ports import Performer, RoundsPort
from .terms import Terms, plan_in, terms_of

__all__ = ["ParticipationEvent", "Worker"]

T = TypeVar("T")

#: What the platform is told. It sees the others itself: it gives the model and the receipt.
_TOLD: frozenset[ParticipationState] = frozenset(
    {
        "local_training",
        "local_eval",
        "declined_policy",
        "failed_retryable",
        "aborted_policy",
        "rejected_local",
        "upload_deferred",
        "expired_round",
    }
)
#: Seconds between two messages of the ordinary course; trouble is told at once.
_TELL_EVERY_S = 1.0
_ORDINARY: frozenset[ParticipationState] = frozenset({"local_training", "local_eval"})
_REMEMBERED = 1_000


@dataclass(frozen=True)
class ParticipationEvent:
    """A participation reached a state; ``at`` is in seconds since the epoch."""

    run: str
    kind: RoundKind
    number: int
    round_id: str
    state: ParticipationState
    detail: str | None
    at: float


class Worker:
    """Obeys a ``Machine``, on a thread of its own or the caller's.

    Args:
        port: the platform; closed by ``stop`` and at the end.
        outbox: where updates wait; closed at the end.
        performer: does the local work.
        name: of the site, for the thread.
        patience: how it waits.
        on_state: told of every state, on the worker's thread.
        is_over: whether nothing more will come; it is given the platform's fault if there
            was one, and asked whenever there is nothing to do.
        stop: set from anywhere to end it; looked at before every step.
    """

    def __init__(
        self,
        port: RoundsPort,
        outbox: Outbox,
        performer: Performer,
        *,
        name: str = "site",
        patience: Patience | None = None,
        on_state: Callable[[ParticipationEvent], None] | None = None,
        is_over: Callable[[TrustStramException | None], bool] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._port = port
        self._outbox = outbox
        self._performer = performer
        self._name = name
        self._machine = Machine(patience)
        self._on_state = on_state
        self._is_over = is_over or (lambda _: False)
        self._stop = stop or threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._terms: dict[str, Terms] = {}
        self._plans: dict[str, RoundPlan] = {}
        self._about: dict[str, tuple[str, RoundKind, int]] = {}
        self._tells = True
        self._told_at = 0.0
        #: why the last state could not be told to the platform, if it could not
        self.untold: TrustStramException | None = None
        self._events: deque[ParticipationEvent] = deque(maxlen=_REMEMBERED)

    @property
    def active(self) -> bool:
        """Whether the thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def events(self) -> list[ParticipationEvent]:
        """The newest thousand states, oldest first; any thread may look."""
        return list(self._events)

    def start(self) -> None:
        """Begin on a thread; ``wait`` tells how it ended."""
        self._thread = threading.Thread(
            target=self._run_quietly, name=f"participant {self._name}", daemon=True
        )
        self._thread.start()

    def run(self) -> None:
        """Take part on this thread until it is over or stopped.

        Raises:
            TrustStramException: as in ``Machine.run``.
        """
        try:
            self._obey(self._machine.run())
        finally:
            self.close()

    def do(self, assignment: Assignment) -> UpdateReceipt | None:
        """Do one assignment on this thread; the connection stays open.

        Raises:
            TrustStramException: as in ``Machine.round``.
        """
        self._know(assignment)
        return self._obey(self._machine.round(assignment))

    def stop(self) -> None:
        """Ask for the end and return at once; nothing is sent afterwards."""
        self._stop.set()
        self._port.close()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the end of the thread.

        Raises:
            RequestTimeoutError: it goes on after ``timeout_s`` seconds; it is not stopped.
            TrustStramException: what ended it.
        """
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise RequestTimeoutError(
                f"Site {self._name} is still taking part after {timeout_s:g} s; wait again, or "
                "stop it."
            )
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let go of the connection and the outbox."""
        self._port.close()
        self._outbox.close()

    def _run_quietly(self) -> None:
        try:
            self.run()
        except BaseException as error:  # noqa: BLE001 - raised again in wait()
            self._error = error

    def _obey(self, course: Steps[T]) -> T | None:
        """Do step after step; None when it was stopped."""
        result: Any = None
        fault: Exception | None = None
        with contextlib.closing(course):
            while not self._stop.is_set():
                try:
                    step = course.send(result) if fault is None else course.throw(fault)
                except StopIteration as done:
                    value: T = done.value
                    return value
                except Stopped:
                    break
                result, fault = None, None
                try:
                    result = self._do(step)
                except Exception as error:  # noqa: BLE001 - the machine decides what it means
                    fault = error
        return None

    def _do(self, step: Step) -> Any:
        match step:
            case steps.Poll(wait_s):
                found = self._port.assignments(wait_s, next(iter(self._plans), None))
                for assignment in found:
                    self._know(assignment)
                return found
            case steps.Admit(assignment):
                return self._performer.objections(self._read_terms(assignment))
            case steps.Fetch(assignment):
                known = assignment.model_sha256 is not None
                return self._port.model(assignment.round_id) if known else None
            case steps.Train(assignment, model):
                return self._train(assignment, model)
            case steps.Push(parcel):
                return self._port.push(parcel.round_id, parcel.body)
            case steps.Pause(seconds):
                return self._stop.wait(seconds)
            case steps.Tell():
                return self._tell(step)
            case steps.Over(fault):
                return self._is_over(fault)
            case _:
                return self._keep(step)

    def _keep(self, step: Step) -> Any:
        match step:
            case steps.Stored():
                return self._outbox.waiting()
            case steps.Load(round_id):
                if self._outbox.is_sent(round_id):
                    return steps.SENT
                parcel = self._outbox.get(round_id)
                if parcel is not None:
                    self._about[round_id] = parcel.run, parcel.kind, parcel.number
                return parcel
            case steps.Keep(parcel):
                return self._outbox.put(parcel)
            case steps.Settle(parcel):
                self._forget(parcel.round_id)
                return self._outbox.settle(parcel)
            case steps.Drop(parcel):
                self._forget(parcel.round_id)
                return self._outbox.drop(parcel.round_id)
            case _:
                raise TypeError(f"{step!r} is no step of a participant")

    def _read_terms(self, assignment: Assignment) -> Terms:
        sha256 = assignment.plan_sha256
        plan = None
        if sha256 is not None:
            # One that brings its terms along saves the way, and the next one leaves them out.
            plan = self._plans.get(sha256)
            if plan is None:
                short = assignment.config is None
                plan = self._port.plan(sha256) if short else plan_in(assignment)
                # One run at a time is the rule, so one plan is enough to remember.
                self._plans = {sha256: plan}
        terms = terms_of(assignment, plan)
        self._terms[assignment.round_id] = terms
        return terms

    def _know(self, assignment: Assignment) -> None:
        about = assignment.run, assignment.kind, assignment.number
        self._about[assignment.round_id] = about

    def _train(self, assignment: Assignment, model: bytes | None) -> Parcel:
        terms = self._terms[assignment.round_id]

        def tell(state: ParticipationState) -> None:
            self._tell(steps.Tell(terms.round_id, state))

        made = self._performer.perform(terms, model, tell, self._outbox.state)
        if self._stop.is_set():
            raise Stopped
        return Parcel(
            round_id=terms.round_id,
            run_id=terms.run_id,
            run=terms.run,
            kind=terms.kind,
            number=terms.number,
            body=made.body,
            state=made.state,
        )

    def _forget(self, round_id: str) -> None:
        self._terms.pop(round_id, None)
        while len(self._about) > _REMEMBERED:
            self._about.pop(next(iter(self._about)))

    def _tell(self, told: steps.Tell) -> None:
        about = self._about.get(told.round_id)
        if about is not None:  # else a round of a thousand rounds ago
            event = ParticipationEvent(*about, told.round_id, told.state, told.detail, time.time())
            self._events.append(event)
            if self._on_state is not None:
                self._on_state(event)
        if not self._tells or told.state not in _TOLD or self._stop.is_set():
            return
        now = time.monotonic()
        if told.state in _ORDINARY and now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        try:
            update = ParticipationUpdate(
                state=told.state, detail=(told.detail or "")[:1_000] or None
            )
            self._port.state(told.round_id, update)
        except (NotFoundError, PermissionDeniedError, InvalidInputError):
            # An older platform takes no states; the rounds do not need them.
            self._tells = False
        except TrustStramException as error:
            # Only news: the next call to the platform meets the same trouble and deals with it.
            self.untold = error
