"""A site's part in a federation, in this kernel: started, seen, stopped, joined again."""

from __future__ import annotations

import platform as machine
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import (
    ConflictError,
    PermissionDeniedError,
    RunStoppedError,
    TrustStramException,
)
from truststram_lab.learning.training import Stopped
from truststram_lab.learning.weights import State
from truststram_lab.render import Card, site_card
from truststram_lab.schemas.federation import Assignment
from truststram_lab.schemas.personal import AnyPersonal
from truststram_lab.schemas.sites import SiteEvent, SiteScore, SiteStatus, SiteView

from .joined_work import JoinedWork
from .participation.files import device_name
from .participation.machine import Patience
from .participation.outbox import Outbox, outbox_folder
from .participation.policy import SitePolicy
from .participation.terms import Terms
from .participation.worker import ParticipationEvent, Worker
from .site_end import how_it_ended
from .site_personal import PERSONAL, read_personal
from .site_policy import policy_words
from .site_port import Noting, SitePort
from .site_spending import claim
from .site_table import SiteTable

if TYPE_CHECKING:
    from truststram_lab.client.participants import ParticipantClient

__all__ = ["SiteRun"]

#: How long ``stop`` waits for the thread; a step takes milliseconds.
_STOP_WAIT_S = 1.8
#: Seconds of a long poll before the first round, and once the site is at work: then somebody
#: who may look at the run is asked in between whether it is over.
_POLL_S, _WORKING_POLL_S = 25.0, 2.0
#: A long poll that gives only other runs' rounds is not asked again before so many seconds.
_OTHERS_S = 1.0
_EVENTS_SHOWN = 30


class SiteRun:
    """One site that takes part in one run of a federation: ``start``, ``wait``, ``stop``.

    Args:
        port: the site's own connection; closed at the end.
        table: its rows.
        federation, site: names on the platform.
        place: what the platform is called here, see ``outbox_folder``.
        organisation: of the site's credential.
        function: the site's own training function; None is the house's.
        policy: the site's floor.
        personal: the model of its own that the site keeps beside the federation's; it stays here.
        run: take part in this run only; None is the first that asks.
        many: go on with the federation's next run after a run's end.
        status_of: says how a run stands, where this kernel's owner may look at it.
        bounds: numeric column -> (least, greatest possible value), for runs that protect rows.
        dp_limit: the most epsilon that may ever be spent on these rows; stays set.
    """

    def __init__(
        self,
        port: ParticipantClient,
        table: SiteTable,
        *,
        federation: str,
        site: str,
        place: str,
        organisation: str = "default",
        function: Callable[..., Any] | None = None,
        policy: SitePolicy | None = None,
        personal: AnyPersonal | None = None,
        run: str | None = None,
        many: bool = False,
        status_of: Callable[[str], tuple[str, str | None]] | None = None,
        bounds: Mapping[str, Any] | None = None,
        dp_limit: float | None = None,
    ) -> None:
        self.federation, self.site = federation, site
        self._client, self._table = port, table
        self._place, self._organisation = place, organisation
        self._function, self._policy = function, policy or SitePolicy()
        self._personal = personal
        self._outbox: Outbox | None = None
        self._run, self._many, self._status_of = run, many, status_of
        self._bounds, self._spending = bounds, table.spending(dp_limit)
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None
        self._idle.set()
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._error: BaseException | None = None
        self._since: float | None = None
        self._last_round_at: float | None = None
        self._declined: str | None = None
        self._view = SiteView(
            federation=federation,
            site=site,
            status="waiting",
            training="the run's network, by SGD" if function is None else _name_of(function),
            rows=table.rows,
            held_out_rows=len(table.held_out),
            class_rows=table.class_rows,
            policy=policy_words(self._policy),
            personal=None if personal is None else str(personal),
            spent=self._spending.all_spent(),
        )

    # What a person sees ------------------------------------------------------------

    @property
    def name(self) -> str:
        """``federation/site``."""
        return f"{self.federation}/{self.site}"

    @property
    def status(self) -> SiteStatus:
        """``waiting``, ``working``, ``done``, ``stopped`` or ``failed``."""
        return self._view.status

    @property
    def active(self) -> bool:
        """Whether this kernel takes part now."""
        return not self._idle.is_set()

    def snapshot(self) -> SiteView:
        """How the site stands now."""
        with self._lock:
            traffic = self._client.traffic
            elapsed = 0.0 if self._since is None else time.monotonic() - self._since
            return self._view.model_copy(
                update={
                    "sent_bytes": traffic.sent_bytes,
                    "received_bytes": traffic.received_bytes,
                    "elapsed_s": elapsed if self.active else self._view.elapsed_s,
                }
            )

    def personal_model(self) -> State | None:
        """What the site keeps for itself, by name: a whole model (Ditto) or its head (FedPer);
        None before the first receipt. It outlives the kernel; the next run begins anew."""
        return None if self._outbox is None else read_personal(self._outbox.state(PERSONAL))

    def card(self) -> Card:
        """The site's card, as static HTML and text."""
        return site_card(self.snapshot())

    def _repr_mimebundle_(self, **_: Any) -> dict[str, object]:
        return self.card().bundle()

    def __repr__(self) -> str:
        view = self._view
        return f"<SiteRun {self.name}: {view.status}, round {view.number}/{view.rounds}>"

    # Going, waiting, stopping ------------------------------------------------------

    def start(self) -> SiteRun:
        """Register, describe the table, and take part on a thread; returns once that is told.

        Raises:
            AuthenticationError: the site's credential is not known.
            ConflictError: another kernel takes part as this site; the sentence says which.
        """
        if self.active:
            return self
        if self._worker is not None:
            raise ConflictError(f"This part of {self.name} is over; join again to go on.")
        folder = outbox_folder(self._place, self.federation, self.site)
        outbox = Outbox(folder, f"site {self.site!r} of {self.federation!r}")
        self._outbox = outbox
        self._client.device = device_name()
        try:
            # Before anything is told: another computer may take part as this site.
            self._client.assignments(0)
            self._spending.join(self._place, self.federation)
            self._introduce()
            self._worker = self._new_worker(outbox)
            self._since = time.monotonic()
            self._idle.clear()
            self._thread = threading.Thread(
                target=self._work, name=f"site {self.name}", daemon=True
            )
            self._thread.start()
        except BaseException:
            self._idle.set()
            outbox.close()
            raise
        return self

    def wait(
        self, tick: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> SiteRun:
        """Wait for the end; ``tick`` is called about ten times a second meanwhile.

        Raises:
            RunStoppedError: it was stopped, here or by the run's owner.
            PermissionDeniedError: the site's policy, or its table, speaks against the run.
            TimeoutError: ``timeout_s`` seconds are over; the site goes on.
            TrustStramException: the site's own work failed, or the platform refused it.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._idle.wait(0.1):
            if tick is not None:
                tick()
            if deadline is not None and time.monotonic() > deadline and self.active:
                raise TimeoutError(f"Site {self.name} is still taking part after {timeout_s:g} s.")
        if self._error is not None:
            raise self._error
        if self._view.status == "stopped":
            raise self.stopped_error()
        return self

    def stop(self) -> SiteRun:
        """Stop within two seconds: nothing is sent afterwards, and nothing stored is lost."""
        self.request_stop()
        if self._idle.wait(_STOP_WAIT_S) and self._thread is not None:
            self._thread.join(0.1)
        return self

    def request_stop(self) -> None:
        """Ask for the stop and return at once; safe from any thread and any callback."""
        self._stop.set()
        if self._worker is not None:
            # Ends a long poll that waits; on a thread, because closing may take a moment.
            threading.Thread(target=self._worker.stop, name="stop site", daemon=True).start()

    def stopped_error(self) -> RunStoppedError:
        """The sentence for a site that was stopped, with the way to go on."""
        run = self._view.run
        where = "before its first round" if run is None else f"in run {run}"
        why = f" ({self._view.reason})" if self._view.reason else ""
        return RunStoppedError(
            f"Site {self.site} of {self.federation} was stopped {where}{why}; join again to go on "
            "where it was.",
            run=run,
        )

    # The thread --------------------------------------------------------------------

    def _introduce(self) -> None:
        self._client.register(
            f"{self.federation}/{self.site}",
            org_id=self._organisation,
            os_version=f"{machine.system()} {machine.release()}",
        )
        self._client.describe(self.federation, self._table.description())

    def _new_worker(self, outbox: Outbox) -> Worker:
        work = JoinedWork(
            self._table,
            self._function,
            self._policy,
            # Of the name, so that a site that joins again draws what it would have drawn.
            seed_place=zlib.crc32(self.site.encode()),
            should_stop=self._stop.is_set,
            personal=self._personal,
            on_score=self._scored,
            on_progress=self._stepped,
            bounds=self._bounds,
            spending=self._spending,
        )
        return Worker(
            SitePort(self._client, self),
            outbox,
            Noting(work, self._read_terms),
            name=self.name,
            patience=Patience(poll_s=_POLL_S),
            on_state=self._reached,
            is_over=self._is_over,
            stop=self._stop,
        )

    def _work(self) -> None:
        assert self._worker is not None
        status: SiteStatus = "done"
        try:
            self._worker.run()
            if self._declined is not None:
                raise PermissionDeniedError(self._declined)
            if self._stop.is_set() or self._view.reason is not None:
                status = "stopped"
        except Stopped:
            status = "stopped"
        except BaseException as error:  # noqa: BLE001 - kept, and raised by wait()
            if self._stop.is_set():
                status = "stopped"
            else:
                self._error, status = error, "failed"
                said = error.message if isinstance(error, TrustStramException) else None
                self._note(reason=said or f"the site's own work failed ({type(error).__name__})")
        finally:
            assert self._since is not None
            self._note(status=status, elapsed_s=time.monotonic() - self._since)
            self._idle.set()

    def saw(self, assignment: Assignment) -> None:
        """A round of ours is offered."""
        self._run = self._run or assignment.run
        self._note(
            run=assignment.run,
            kind=assignment.kind,
            number=assignment.number,
            rounds=assignment.rounds,
        )

    def is_mine(self, assignment: Assignment) -> bool:
        """Whether the round is of the run that this site takes part in."""
        return self._run is None or self._run in (assignment.run, assignment.run_id)

    def poll_s(self, wait_s: float) -> float:
        """How long a long poll may take now."""
        asks = self._status_of is not None and self._view.run is not None
        return min(wait_s, _WORKING_POLL_S if asks else _POLL_S)

    def pause(self) -> None:
        """Let others' rounds be."""
        self._stop.wait(_OTHERS_S)

    def _read_terms(self, terms: Terms) -> None:
        plan = terms.privacy
        if plan is None:
            words = "none promised by the run; the platform sees this site's updates"
            self._note(privacy=words, epsilon=None, budget=None)
            return
        found = claim(terms)
        self._note(privacy=found.text, epsilon=found.epsilon, budget=found.budget)

    def _reached(self, event: ParticipationEvent) -> None:
        if event.state == "uploading":
            # Before the first byte leaves; what is stored leaves as it is, after any crash.
            self._spending.release(event.round_id)
            self._note(spent=self._spending.all_spent())
        with self._lock:
            told = SiteEvent(
                kind=event.kind,
                number=event.number,
                state=event.state,
                detail=event.detail,
                at=event.at,
            )
            changes: dict[str, Any] = {"events": [*self._view.events, told][-_EVENTS_SHOWN:]}
            changes["progress"] = None
            if event.state == "completed":
                changes["updates_sent"] = self._view.updates_sent + 1
                self._last_round_at = time.monotonic()
            changes["status"] = "waiting" if event.state == "completed" else "working"
            self._view = self._view.model_copy(update=changes)
        if event.state == "declined_policy" and not self._many:
            self._declined = event.detail or "The site's policy speaks against the run."

    def _stepped(self, done: int, steps: int) -> None:
        self._note(progress=f"step {done} of {steps}")

    def _scored(self, entry: SiteScore) -> None:
        with self._lock:
            others = [found for found in self._view.scores if found.number != entry.number]
            self._view = self._view.model_copy(update={"scores": [*others, entry]})

    def _is_over(self, fault: TrustStramException | None) -> bool:
        if self._declined is not None:
            return True
        view = self._view
        if fault is not None or view.run is None:
            return False
        quiet_s = 0.0 if self._last_round_at is None else time.monotonic() - self._last_round_at
        ended, reason = how_it_ended(view, self._status_of, quiet_s)
        if ended and self._many:
            self._run = None
            self._note(run=None, status="waiting")
            return False
        if ended and reason is not None:
            self._note(reason=reason)
        return ended

    def _note(self, **changes: Any) -> None:
        with self._lock:
            self._view = self._view.model_copy(update=changes)


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name}, a function of this kernel"
