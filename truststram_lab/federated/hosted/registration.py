"""A simulation of any torch module as a run on the platform: one host that pushes once a round.

The platform knows no such module, so the run is one of named arrays: it keeps the initial weights
and every round's change, adds them up, and ends with a file. The kernel's own model is the same
to the bit, because both add by ``learning.weights.apply``.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from truststram_lab.exceptions import RoundClosedError, TrustStramException
from truststram_lab.federated.departures import Departures
from truststram_lab.federated.preparation import HOST
from truststram_lab.federated.stopping import stop_on_event
from truststram_lab.learning import weights
from truststram_lab.learning.training import Stopped
from truststram_lab.learning.weights import State
from truststram_lab.schemas.federation import CreateRun, Run, RunReport, SiteReport

if TYPE_CHECKING:
    from truststram_lab.client import TrustStramClient

__all__ = ["Registration", "shared_arrays"]

#: Seconds of a long poll for the next round; short enough to stop within two.
_WAIT_S = 1.0
_ACTIVE = ("statistics", "training")


def shared_arrays(state: Mapping[str, np.ndarray]) -> State:
    """What is told of a state: its floats. Counters such as a batch norm's stay in the kernel."""
    return {name: array for name, array in state.items() if array.dtype.kind == "f"}


class Registration:
    """One simulation's run, from the announcement to its last report.

    Args:
        plan: of named arrays, with ``hosted``.
        start: the initial weights.

    Attributes:
        stop: set when the run was stopped from elsewhere.
    """

    def __init__(self, client: TrustStramClient, plan: CreateRun, start: State) -> None:
        self._client = client
        self._open = ExitStack()
        self._round_id = ""
        self._since = time.monotonic()
        self.stop = threading.Event()
        client.federations.create(plan.federation)
        invited = client.federations.invite(plan.federation, [HOST], keep=True)
        body = weights.encode(start)
        client.blobs.put(body)
        self.run: Run = client.runs.create(plan)
        self._departures = Departures(self.run.id)
        self._departures.weights(body, start)
        self._departures.fields(None, "plan", plan)
        try:
            self._site = client.participant(invited[0].token)
            self._open.callback(self._site.close)
            self._site.register(f"{plan.federation}/{HOST}")
            stop_on_event(client, self.run, self.stop, self._open)
        except BaseException:
            self.end()
            raise

    @property
    def name(self) -> str:
        """The run's name on the platform."""
        return self.run.name

    def wait_for(self, number: int) -> None:
        """Wait until training round ``number`` is open.

        Raises:
            Stopped: the run was stopped.
        """
        while True:
            for assignment in self._site.assignments(wait_s=_WAIT_S):
                if assignment.run_id == self.run.id and assignment.number == number:
                    self._round_id = assignment.round_id
                    return
            if self.stop.is_set() or self._read().status not in _ACTIVE:
                raise Stopped

    def push(self, number: int, change: State, rows: int, metrics: Mapping[str, float]) -> None:
        """Hand in the round's one update, of all virtual clients.

        Raises:
            Stopped: the run was stopped; nothing left.
        """
        update = shared_arrays(change)
        texts = {"sample_count": str(rows), "metrics": json.dumps(dict(metrics))}
        body = weights.encode(update, texts)
        if self.stop.is_set():
            raise Stopped
        self._departures.update(HOST, "training", number, body, update)
        try:
            self._site.push(self._round_id, body)
        except RoundClosedError:
            raise Stopped from None

    def report(self, found: RunReport, rows: int) -> None:
        """Tell what was measured so far; the host's line and the time are added here."""
        traffic = self._site.traffic
        site = SiteReport(
            name=HOST,
            rows=rows,
            status="pushed" if self.run.status in _ACTIVE else "done",
            sent_bytes=traffic.sent_bytes,
            received_bytes=traffic.received_bytes,
        )
        told = found.model_copy(
            update={"sites": [site], "elapsed_s": time.monotonic() - self._since}
        )
        self._departures.fields(None, "report", told)
        self.run = self._client.runs.report(self.name, told)

    def finish(self) -> None:
        """Wait until the platform has added the last round up.

        Raises:
            Stopped: the run was stopped.
        """
        while self._read().status in _ACTIVE:
            self._site.assignments(wait_s=_WAIT_S)
        if self.run.status != "completed":
            raise Stopped

    def end(self) -> None:
        """Stop the run where it is not done, and let go of the connections."""
        # What ended the simulation matters more than a platform that is gone.
        with contextlib.suppress(TrustStramException):
            if self._read().status in _ACTIVE:
                self.run = self._client.runs.stop(self.name)
        self._open.close()

    def _read(self) -> Run:
        self.run = self._client.runs.get(self.name)
        return self.run
