"""One site: its rows, its identity, its own connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from truststram_lab.learning import weights
from truststram_lab.learning.device import best_device
from truststram_lab.learning.statistics import local_moments
from truststram_lab.learning.training import round_seed, train
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.schemas.federation import Assignment, UpdateReceipt

if TYPE_CHECKING:
    from truststram_lab.client.participants import ParticipantClient

    from .preparation import SiteData

__all__ = ["Participant"]


class Participant:
    """A site that answers assignments with updates, never with rows.

    Args:
        data: the site's rows; they stay in this object.
        index: the site's place in the plan, part of its random seeds.
        client: the site's own authenticated connection.
        should_stop: asked before each optimizer step and before each push.
    """

    def __init__(
        self,
        data: SiteData,
        index: int,
        client: ParticipantClient,
        *,
        should_stop: Callable[[], bool],
    ) -> None:
        self.data = data
        self.index = index
        self.client = client
        self._should_stop = should_stop
        self._encoded: tuple[str, np.ndarray] | None = None

    @property
    def name(self) -> str:
        """The site's name in the federation."""
        return self.data.name

    def perform(self, assignment: Assignment) -> UpdateReceipt | None:
        """Do one round's work and push the result; None when stopped before the push.

        Raises:
            UpdateRejectedError: the platform found the update unusable.
            RoundClosedError: the round took no more updates.
        """
        if assignment.kind == "statistics":
            update = local_moments(self.data.frame, assignment.signature)
            metrics: dict[str, float] = {}
        else:
            base, _ = weights.decode(self.client.model(assignment.round_id))
            trained, metrics = train(
                assignment.architecture,
                base,
                self._inputs(assignment),
                self.data.codes,
                assignment.local,
                round_seed(assignment.seed, self.index, assignment.number),
                best_device(),
                self._should_stop,
            )
            update = weights.delta(base, trained)
        body = weights.encode(
            update,
            {"sample_count": str(len(self.data.codes)), "metrics": json.dumps(metrics)},
        )
        if self._should_stop():
            return None
        return self.client.push(assignment.round_id, body)

    def _inputs(self, assignment: Assignment) -> np.ndarray:
        # The aggregates do not change within a run, so the encoded rows are kept.
        if self._encoded is None or self._encoded[0] != assignment.run_id:
            if assignment.statistics is None:
                raise RuntimeError("a training round opened before the statistics were aggregated")
            encoder = TableEncoder(assignment.signature, assignment.statistics)
            self._encoded = assignment.run_id, encoder.encode_frame(self.data.frame)
        return self._encoded[1]

    def close(self) -> None:
        """Close the site's connection."""
        self.client.close()
