"""Alone, federated, pooled: is the federation worth it?

Every contender has the same network, the same optimizer and the same number of epochs,
and is scored on the same held-out rows. "Alone" knows one site's rows and that site's own
means and variances; "pooled" knows all rows, which no real federation could.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from truststram_lab.learning.device import best_device
from truststram_lab.learning.metrics import log_loss, score
from truststram_lab.learning.network import Network
from truststram_lab.learning.statistics import local_moments, merge_moments
from truststram_lab.learning.training import initial_state, round_seed, train
from truststram_lab.learning.weights import State
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.schemas.federation import CreateRun, Score
from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.tables import Signature, Statistics

from .preparation import Prepared, SiteData, network_of

__all__ = ["Comparison", "Evaluated", "HeldOut"]

#: Round numbers of the baselines, far from any real round, so that no seed is shared.
_BASELINE_ROUND = 2**20


@dataclass(frozen=True)
class Evaluated:
    """A network's score and its mean log loss (nats a row) on the held-out rows."""

    score: Score
    loss: float


class HeldOut:
    """Rows that score networks whose inputs were all scaled by the same statistics."""

    def __init__(
        self,
        architecture: Architecture,
        signature: Signature,
        statistics: Statistics,
        rows: SiteData,
    ) -> None:
        self._architecture = architecture
        self._signature = signature
        self._codes = rows.codes
        self._inputs = TableEncoder(signature, statistics).encode_frame(rows.frame)

    def evaluate(self, state: State) -> Evaluated:
        """The score of the network with these weights."""
        network = Network(self._architecture, state, self._signature)
        probabilities = network.probabilities(self._inputs)
        return Evaluated(
            score(self._codes, probabilities, self._signature.classes),
            log_loss(self._codes, probabilities),
        )


class Comparison:
    """Scores global models and trains the two baselines on this kernel's device."""

    def __init__(
        self, prepared: Prepared, plan: CreateRun, *, should_stop: Callable[[], bool]
    ) -> None:
        self._prepared = prepared
        self._plan = plan
        self._architecture = network_of(plan)
        self._should_stop = should_stop

    def evaluate(self, state: State, statistics: Statistics) -> Evaluated:
        """Score a network that was trained on inputs scaled by ``statistics``."""
        prepared = self._prepared
        rows = HeldOut(self._architecture, prepared.signature, statistics, prepared.held_out)
        return rows.evaluate(state)

    def majority_share(self) -> float:
        """The accuracy of always naming the most frequent held-out class."""
        counts = np.bincount(self._prepared.held_out.codes)
        return float(counts.max() / counts.sum())

    def alone(self) -> Iterator[tuple[str, Score]]:
        """Each site by itself, in the plan's order."""
        for index, site in enumerate(self._prepared.sites):
            yield site.name, self._train_and_score(site, index)

    def pooled(self) -> Score:
        """All training rows in one place."""
        sites = self._prepared.sites
        everything = SiteData(
            "pooled",
            pd.concat([site.frame for site in sites], ignore_index=True),
            np.concatenate([site.codes for site in sites]),
        )
        return self._train_and_score(everything, len(sites))

    def _train_and_score(self, site: SiteData, index: int) -> Score:
        plan, signature = self._plan, self._prepared.signature
        own = merge_moments([local_moments(site.frame, signature)], signature)
        inputs = TableEncoder(signature, own).encode_frame(site.frame)
        local = plan.local.model_copy(update={"epochs": plan.local.epochs * plan.rounds})
        trained, _ = train(
            self._architecture,
            initial_state(self._architecture, plan.seed, plan.local.dtype),
            inputs,
            site.codes,
            local,
            round_seed(plan.seed, index, _BASELINE_ROUND),
            best_device(),
            self._should_stop,
        )
        return self.evaluate(trained, own).score
