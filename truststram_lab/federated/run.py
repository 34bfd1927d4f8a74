"""A run in this kernel: the sites' training on a thread, seen and stopped from outside."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from truststram_lab.exceptions import (
    ConflictError,
    RoundClosedError,
    RunStoppedError,
    TrustStramException,
)
from truststram_lab.learning import weights
from truststram_lab.learning.training import Stopped
from truststram_lab.render import Card, LiveCard, live_run_card, run_card
from truststram_lab.schemas.federation import Run
from truststram_lab.schemas.run_privacy import RunPrivacy

from .board import Board
from .comparison import Comparison
from .departures import Departures
from .draft import Draft
from .handle import RunHandle, is_settled
from .preparation import Prepared
from .run_spending import check_limit, store_bounds
from .simulation import Simulation
from .sites_frame import sites_frame

if TYPE_CHECKING:
    import pandas as pd

    from truststram_lab.client import TrustStramClient

__all__ = ["FederatedRun"]

#: How long ``stop`` waits for the training thread; a step takes milliseconds.
_STOP_WAIT_S = 1.8

#: How long a thread that was told to stop may still be loading torch.
_LOADING_S = 60.0


class FederatedRun(RunHandle):
    """A simulated federation that trains one model; new from a ``Draft``, or built on
    a run that the platform knows.

    The object is the same for a run that is going, was stopped, or is done:
    ``status``, ``snapshot()``, ``wait()``, ``stop()``, ``resume()``.
    """

    def __init__(self, client: TrustStramClient, run: Run, prepared: Prepared) -> None:
        super().__init__(client, run)
        self._prepared = prepared
        self._stop = threading.Event()
        self._comparison = Comparison(prepared, run.plan, should_stop=self._stop.is_set)
        self._board = Board(
            run,
            prepared.as_host() if run.plan.hosted is not None else prepared,
            majority_share=self._comparison.majority_share(),
        )
        #: how often the platform's view of the run was taken in
        self._seen = 0
        # Not Thread.join: an interrupt inside it can make a living thread look ended.
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @classmethod
    def announce(cls, client: TrustStramClient, draft: Draft) -> FederatedRun:
        """Announce the plan and the initial weights to the platform; nothing trains yet.

        Raises:
            PrivacyBudgetError: the run would not fit under the data set's limit.
        """
        plan = draft.plan
        check_limit(plan, draft.dp_limit)
        client.federations.create(plan.federation)
        client.federations.invite(plan.federation, plan.sites, keep=True)
        body = weights.encode(draft.state)
        client.blobs.put(body)
        run = client.runs.create(plan)
        if draft.bounds is not None:
            store_bounds(run.id, draft.bounds)
        left = Departures(run.id)
        left.weights(body, draft.state)
        left.fields(None, "plan", plan)
        return cls(client, run, draft.prepared)

    # What a person sees ------------------------------------------------------------

    @property
    def prepared(self) -> Prepared:
        """The rows: dealt to the sites, and held out."""
        return self._prepared

    @property
    def active(self) -> bool:
        """Whether this kernel is working on it now."""
        return not self._idle.is_set()

    def snapshot(self) -> Run:
        """The run as it is now: the platform's state and what this kernel measured."""
        return self._run.model_copy(update={"report": self._board.report()})

    def to_frame(self) -> pd.DataFrame:
        """Whether it is worth it, one line a site: rows, accuracy alone, federated and of its own
        model, and whether it would do better alone.

        Raises:
            ConflictError: nothing is compared yet.
        """
        return sites_frame(self.snapshot(), [*self._prepared.parts], self._client.blobs.get)

    @property
    def spending(self) -> RunPrivacy | None:
        """What the run has spent of its owner's privacy budget; None without privacy."""
        return self._board.spending

    def card(self) -> Card:
        """The run's card, as static HTML and text."""
        return run_card(self.snapshot(), progress=self._board.progress, spending=self.spending)

    def live_card(self) -> LiveCard:
        """What is shown in the card's place while the run goes on."""
        return live_run_card(self.snapshot(), progress=self._board.progress, spending=self.spending)

    def revision(self) -> object:
        """Another one whenever the card would tell something new, and every second."""
        return self._seen, self._board.revision

    # Going, waiting, stopping ------------------------------------------------------

    def start(self) -> FederatedRun:
        """Begin, or go on, on a thread of this kernel; returns at once."""
        if not self.active:
            self._stop.clear()
            self._error = None
            self._board.start_clock()
            self._thread = threading.Thread(target=self._work, name=f"run {self.name}", daemon=True)
            self._idle.clear()
            try:
                self._thread.start()
            except BaseException:
                self._idle.set()
                raise
        return self

    def wait(
        self, tick: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> FederatedRun:
        """Wait for the end; ``tick`` is called about ten times a second meanwhile.

        Raises:
            RunStoppedError: it was stopped: here, in another window, or by the platform.
            TimeoutError: ``timeout_s`` seconds are over; the run goes on.
            TrustStramException: it failed; the sentence says why.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._idle.wait(0.1):
            if tick is not None:
                tick()
            if deadline is not None and time.monotonic() > deadline and self.active:
                raise TimeoutError(f"Run {self.name} is still going after {timeout_s:g} s.")
        if self._error is not None:
            raise self._error
        if self._run.status == "stopped":
            raise self.stopped_error()
        return self

    def stop(self) -> FederatedRun:
        """Stop within two seconds: the thread ends and nothing is pushed afterwards."""
        self.request_stop()
        if self._idle.wait(_STOP_WAIT_S) and self._thread is not None:
            self._thread.join(0.1)
        if self._run.status in ("statistics", "training"):
            self._settle_stop()
        return self

    def request_stop(self) -> None:
        """Ask for the stop and return at once; safe from any thread and any callback."""
        self._stop.set()

    def resume(self) -> FederatedRun:
        """Go on where it was stopped: sites that had pushed do not train again.

        Raises:
            ConflictError: the run is already done.
        """
        if self._stop.is_set() and not self._idle.wait(_LOADING_S):
            raise ConflictError(f"Run {self.name} is still stopping; resume it in a moment.")
        if self.active:
            return self
        run = self._client.runs.get(self.name)
        if run.status == "failed" or (run.status == "completed" and is_settled(self.snapshot())):
            raise ConflictError(
                f"Run {self.name} is {run.status}; there is nothing to resume. "
                f"Start another with %ts_federate."
            )
        if run.status in ("statistics", "training"):
            # Its kernel is gone or elsewhere; taking it over begins with a clean stop.
            run = self._client.runs.stop(self.name)
        self._saw(self._client.runs.resume(self.name) if run.status == "stopped" else run)
        return self.start()

    def stopped_error(self) -> RunStoppedError:
        """The sentence for a run that was stopped, with the way to go on."""
        run = self._run
        return RunStoppedError(
            f"Run {run.name} was stopped in round {min(run.round + 1, run.plan.rounds)} of "
            f"{run.plan.rounds}; go on with %ts_runs {run.name} resume.",
            run=run.name,
        )

    # The thread --------------------------------------------------------------------

    def _work(self) -> None:
        simulation = Simulation(
            self._client,
            self._run,
            self._prepared,
            self._comparison,
            self._board,
            stop=self._stop,
            on_run=self._saw,
        )
        try:
            simulation.work()
        except (Stopped, RoundClosedError):
            self._board.all_sites("stopped")
            self._settle_stop()
        except BaseException as error:  # noqa: BLE001 - kept, and raised by wait()
            self._error = error
            self._board.all_sites("failed")
            # Others should see it at rest; the first error is the one that matters.
            with contextlib.suppress(TrustStramException):
                self._settle_stop()
        finally:
            self._board.stop_clock()
            self._idle.set()

    def _saw(self, run: Run) -> None:
        self._run = run
        self._seen += 1

    def _settle_stop(self) -> None:
        """Make the platform agree that the run is stopped, and keep what was measured."""
        run = self._client.runs.get(self.name)
        if run.status in ("statistics", "training"):
            run = self._client.runs.stop(self.name)
        self._saw(self._client.runs.report(self.name, self._board.report()))
