"""One simulated site: its work, its identity, its own connection, what it keeps between rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from truststram_lab.exceptions import ConflictError, RoundClosedError
from truststram_lab.learning.statistics import empty_moments
from truststram_lab.learning.strategies import expected_update
from truststram_lab.learning.training import Stopped
from truststram_lab.schemas.accounts import DeviceRegistration
from truststram_lab.schemas.federation import Assignment, CreateRun, UpdateReceipt
from truststram_lab.schemas.tables import Signature

from .participation.outbox import Outbox, Parcel
from .site_work import model_and_control

if TYPE_CHECKING:
    from truststram_lab.client.participants import ParticipantClient

    from .departures import Departures
    from .hosted.work import HostWork
    from .site_work import TableWork

__all__ = ["Participant"]


class Participant:
    """A site that answers assignments with updates, never with rows.

    Args:
        name: the site's.
        index: its place in the plan.
        work: what it does in a round.
        client: the site's own authenticated connection.
        outbox: where an update lies until its receipt, with what the site keeps; None where an
            update can be made again, bit for bit.
        departures: the owner's record, written before anything leaves.
        should_stop: asked before each push.
    """

    def __init__(
        self,
        name: str,
        index: int,
        work: TableWork | HostWork,
        client: ParticipantClient,
        *,
        plan: CreateRun,
        signature: Signature,
        outbox: Outbox | None,
        departures: Departures,
        should_stop: Callable[[], bool],
    ) -> None:
        self.name = name
        self.index = index
        self.client = client
        self._work = work
        self._plan = plan
        self._signature = signature
        self._outbox = outbox
        self._departures = departures
        self._should_stop = should_stop

    def register(self, identifier: str) -> None:
        """Make the site known to the platform, by four fields."""
        told = DeviceRegistration(device_identifier=identifier)
        self._departures.fields(self.name, "registration", told)
        self.client.register(identifier)

    def send_waiting(self) -> None:
        """Send what a former kernel had stored and got no receipt for.

        The platform may have it already, and says so; a round that closed without it is over.
        """
        if self._outbox is None:
            return
        for round_id in self._outbox.waiting():
            parcel = self._outbox.get(round_id)
            assert parcel is not None, "it was listed, and this process holds the lock"
            try:
                self.client.push(round_id, parcel.body)
            except (RoundClosedError, ConflictError):
                self._outbox.drop(round_id)
            else:
                self._outbox.settle(parcel)

    def has_made(self, assignment: Assignment) -> bool:
        """Whether the round's update is stored already, so that nothing is drawn for it."""
        return self._outbox is not None and self._outbox.get(assignment.round_id) is not None

    def perform(self, assignment: Assignment) -> UpdateReceipt:
        """Do one round's work and push the result.

        Raises:
            Stopped: before the push; nothing left.
            UpdateRejectedError: the platform found the update unusable.
            RoundClosedError: the round took no more updates.
        """
        parcel, like = self._parcel(assignment)
        if self._should_stop():
            raise Stopped
        self._departures.update(self.name, assignment.kind, assignment.number, parcel.body, like)
        receipt = self.client.push(assignment.round_id, parcel.body)
        if self._outbox is not None:
            self._outbox.settle(parcel)
        return receipt

    def _parcel(self, assignment: Assignment) -> tuple[Parcel, Mapping[str, np.ndarray]]:
        """The update, stored or made now, and the arrays that the platform expects in it."""
        model = None
        like: Mapping[str, np.ndarray] = empty_moments(self._signature)
        if assignment.kind != "statistics":
            model = self.client.model(assignment.round_id)
            like = expected_update(self._plan.strategy, model_and_control(model)[0])
        if self._outbox is not None:
            stored = self._outbox.get(assignment.round_id)
            if stored is not None:
                return stored, like
        made = self._work.perform(assignment, model, self.kept)
        parcel = Parcel(
            assignment.round_id,
            assignment.run_id,
            assignment.run,
            assignment.kind,
            assignment.number,
            made.body,
            made.state,
        )
        if self._outbox is not None:
            self._outbox.put(parcel)
        return parcel, like

    def kept(self, name: str) -> bytes | None:
        """A file of the site's own, as the last acknowledged round left it."""
        return None if self._outbox is None else self._outbox.state(name)

    def close(self) -> None:
        """Close the site's connection, and let another kernel work as this site."""
        self.client.close()
        if self._outbox is not None:
            self._outbox.close()
