"""What a participant does next, without I/O.

``Machine.run`` is a generator. It yields what it wants done and is sent the result, or is thrown
the error; ``Worker`` obeys it on a thread, and a test obeys it with faults of its choice::

    Stored -> [round ids]    Load -> Parcel | SENT | None    Poll -> [Assignment]
    Admit -> [sentences]     Fetch -> model | None           Train -> Parcel
    Push -> UpdateReceipt    Over -> bool                    the others -> None

Laws, whatever the order of answers, faults and restarts: an update is stored before it is sent;
one round sends one sequence of bytes; what was stored is sent until a receipt comes or the round
takes no more updates.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from truststram_lab.exceptions import (
    ConflictError,
    InsufficientResourcesError,
    NotFoundError,
    PlatformError,
    PlatformUnavailableError,
    RateLimitExceededError,
    RequestTimeoutError,
    RoundClosedError,
    TrustStramException,
    UpdateRejectedError,
)
from truststram_lab.schemas.federation import Assignment, UpdateReceipt
from truststram_lab.schemas.participation import ParticipationState

from .outbox import Parcel

__all__ = [
    "RETRYABLE",
    "SENT",
    "Admit",
    "Drop",
    "Fetch",
    "Keep",
    "Load",
    "Machine",
    "Over",
    "Patience",
    "Pause",
    "Poll",
    "Push",
    "Settle",
    "Step",
    "Stored",
    "Tell",
    "Train",
]

T = TypeVar("T")

#: What may be better in a moment. Only a call to the platform is repeated for it.
RETRYABLE = (
    PlatformUnavailableError,
    RequestTimeoutError,
    RateLimitExceededError,
    InsufficientResourcesError,
    PlatformError,
)


#: A receipt for the round has come before.
SENT: Literal["sent"] = "sent"


@dataclass(frozen=True)
class Stored:
    """Which rounds have a stored update, oldest first?"""


@dataclass(frozen=True)
class Load:
    """The round's stored update, None without one, ``SENT`` if a receipt came for it."""

    round_id: str


@dataclass(frozen=True)
class Poll:
    """Ask for assignments, waiting up to ``wait_s`` seconds for one."""

    wait_s: float


@dataclass(frozen=True)
class Admit:
    """Read the terms; what the site's own rules say against them, one sentence each."""

    assignment: Assignment


@dataclass(frozen=True)
class Fetch:
    """Get the model that the round starts from; None where the round has none."""

    assignment: Assignment


@dataclass(frozen=True)
class Train:
    """Do the local work and make the update of it."""

    assignment: Assignment
    model: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Keep:
    """Store the update."""

    parcel: Parcel


@dataclass(frozen=True)
class Push:
    """Send the stored update."""

    parcel: Parcel


@dataclass(frozen=True)
class Settle:
    """The receipt came: the site's state counts, the update goes."""

    parcel: Parcel


@dataclass(frozen=True)
class Drop:
    """The round is gone for good: the stored update goes, the state stays as it was."""

    parcel: Parcel


@dataclass(frozen=True)
class Pause:
    """Wait, interruptibly."""

    seconds: float


@dataclass(frozen=True)
class Tell:
    """The participation reached a state."""

    round_id: str
    state: ParticipationState
    detail: str | None = None


@dataclass(frozen=True)
class Over:
    """Is there nothing more to come? ``error`` is the platform's silence, if it is silent."""

    error: TrustStramException | None = None


Step: TypeAlias = (
    Stored | Load | Poll | Admit | Fetch | Train | Keep | Push | Settle | Drop | Pause | Tell | Over
)
Steps: TypeAlias = Generator[Step, Any, T]


@dataclass(frozen=True)
class Patience:
    """How a participant waits.

    Args:
        poll_s: of one long poll, up to 30.
        base_s: upper bound of the first pause after a fault; it doubles with every fault.
        cap_s: upper bound of any pause that the platform did not ask for.
        outage_s: pause in all after which a silent platform is an error; None waits for ever.
    """

    poll_s: float = 25.0
    base_s: float = 0.5
    cap_s: float = 30.0
    outage_s: float | None = None


class Machine:
    """One site's participation.

    Args:
        patience: of its waiting.
        jitter: a number in [0, 1): pauses of many sites spread (Brooker 2015, "Exponential
            Backoff And Jitter", AWS Architecture Blog).
    """

    def __init__(
        self,
        patience: Patience | None = None,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._patience = patience or Patience()
        self._jitter = jitter
        self._declined: set[str] = set()
        #: refused for now: a stopped run may go on, and then takes these very bytes
        self._parked: set[str] = set()

    def run(self) -> Steps[None]:
        """Take part until ``Over`` says that nothing more will come.

        Raises:
            TrustStramException: the site's own work failed, the credential is refused, or the
                platform was silent for too long.
        """
        with contextlib.suppress(_EndedError):
            yield from self._deliver_stored()
            yield from self._take_part()

    def _take_part(self) -> Steps[None]:
        idle = 0
        while True:
            found: list[Assignment] = yield from self._insist(Poll(self._patience.poll_s))
            worked = False
            for assignment in found:
                worked = (yield from self.round(assignment)) is not None or worked
            if worked:
                idle = 0
                continue
            if (yield Over()):
                return
            if found:
                # Offered, but not for us, or a late echo: the long poll would not wait.
                idle += 1
                yield Pause(self._bounded(idle))

    def round(self, assignment: Assignment) -> Steps[UpdateReceipt | None]:
        """Do one assignment; None if it was sent before, is declined, or is over.

        Raises:
            TrustStramException: the site's own work failed; nothing was sent.
        """
        round_id = assignment.round_id
        stored = yield Load(round_id)
        if stored == SENT or round_id in self._declined:
            return None
        parcel: Parcel | None = stored
        if parcel is None:
            parcel = yield from self._work(assignment)
        else:
            # The platform asks for it, so a refusal of before is over.
            self._parked.discard(round_id)
        return None if parcel is None else (yield from self._deliver(parcel))

    def _work(self, assignment: Assignment) -> Steps[Parcel | None]:
        round_id = assignment.round_id
        yield Tell(round_id, "offered")
        try:
            objections = yield from self._insist(Admit(assignment), round_id)
            if objections:
                self._declined.add(round_id)
                yield Tell(round_id, "declined_policy", " ".join(objections))
                return None
            yield Tell(round_id, "accepted")
            yield Tell(round_id, "plan_fetching")
            model = yield from self._insist(Fetch(assignment), round_id)
        except (RoundClosedError, NotFoundError) as error:
            yield Tell(round_id, "expired_round", error.message)
            return None
        yield Tell(round_id, "plan_ready")
        try:
            parcel: Parcel = yield Train(assignment, model)
        except Exception as error:
            # What another exception says may quote the site's data; it stays here.
            said = "The site's own work failed; nothing was sent."
            if isinstance(error, TrustStramException):
                said = error.message
            yield Tell(round_id, "rejected_local", said)
            raise
        yield Keep(parcel)
        return parcel

    def _deliver_stored(self) -> Steps[None]:
        for round_id in (yield Stored()):
            parcel = yield Load(round_id)
            if isinstance(parcel, Parcel):
                yield from self._deliver(parcel, unasked=True)

    def _deliver(self, parcel: Parcel, *, unasked: bool = False) -> Steps[UpdateReceipt | None]:
        round_id = parcel.round_id
        if round_id in self._parked:
            return None
        yield Tell(round_id, "uploading")
        try:
            receipt: UpdateReceipt = yield from self._insist(Push(parcel), round_id)
        except (RoundClosedError, NotFoundError) as error:
            # Kept: the run may be resumed, and then wants these bytes and no others.
            self._parked.add(round_id)
            yield Tell(round_id, "expired_round", error.message)
            return None
        except (UpdateRejectedError, ConflictError) as error:
            yield Drop(parcel)
            yield Tell(round_id, "aborted_policy", error.message)
            if unasked:
                return None
            raise
        yield Tell(round_id, "uploaded")
        yield Settle(parcel)
        yield Tell(round_id, "acknowledged")
        yield Tell(round_id, "completed")
        return receipt

    def _insist(self, step: Step, round_id: str | None = None) -> Steps[Any]:
        """Do the step, again and again while the platform is not able to answer."""
        faults, waited = 0, 0.0
        while True:
            try:
                return (yield step)
            except RETRYABLE as error:
                fault: TrustStramException = error
            except UpdateRejectedError as error:
                if error.field != "Content-Digest":
                    raise
                fault = error  # damaged on the way, not at its source
            if (yield Over(fault)):
                raise _EndedError
            limit = self._patience.outage_s
            if limit is not None and waited >= limit:
                raise fault
            faults += 1
            if round_id is not None:
                late = isinstance(step, Push)
                state: ParticipationState = "upload_deferred" if late else "failed_retryable"
                yield Tell(round_id, state, fault.message)
            asked = getattr(fault, "retry_after", None) or 0.0
            seconds = max(self._bounded(faults), float(asked))
            waited += seconds
            yield Pause(seconds)

    def _bounded(self, times: int) -> float:
        bound = min(self._patience.cap_s, self._patience.base_s * 2.0 ** min(times - 1, 16))
        # Never 0: a fault that comes at once would keep a processor busy.
        return bound * (0.1 + 0.9 * self._jitter())


class _EndedError(Exception):
    """Whoever was asked says that nothing more will come."""
