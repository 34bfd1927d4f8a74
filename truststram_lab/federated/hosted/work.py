"""The host's part in a round: all virtual clients train, one update leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from truststram_lab.federated.bounds import Bounds
from truststram_lab.federated.participation.ports import Made
from truststram_lab.federated.preparation import Prepared, network_of
from truststram_lab.federated.record_privacy import private_moments, statistics_terms
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import joined_moments, local_moments
from truststram_lab.learning.virtual import Trainer
from truststram_lab.learning.weights import State
from truststram_lab.schemas.federation import Assignment, CreateRun
from truststram_lab.schemas.privacy import RecordPlan
from truststram_lab.schemas.tables import Statistics

from .averaging import keeps_back
from .client_memory import ClientMemory
from .own_states import OwnStates
from .rounds import ClientRounds, Rules
from .wish import clients_of, trainer_of

__all__ = ["HostWork", "host_remembers"]

_SERVER = "server"

#: Reads a file that the host keeps between rounds.
Own = Callable[[str], "bytes | None"]


def host_remembers(plan: CreateRun) -> bool:
    """Whether an update must be stored before it leaves: because noise in it must not be drawn
    twice, or because the host keeps something from round to round."""
    assert plan.hosted is not None, "the caller looked"
    stateless = {"fedavg", "fedprox", "median", "trimmed_mean", "krum", "multi_krum"}
    random = any(found.type == "gaussian_noise" for found in plan.filters)
    return (
        plan.hosted.strategy.name not in stateless
        or plan.hosted.personal is not None
        or plan.privacy is not None
        or random
        or keeps_back(plan.filters)
    )


class HostWork:
    """What the host does with all clients' rows; they stay in this object.

    Args:
        prepared: the clients' rows.
        folder: where files of the clients' own lie between rounds; made when one is kept.
        bounds: for private statistics; they stay in this kernel.
        progress: told in a few words how far the round is.
        should_stop: asked before each optimizer step.
    """

    def __init__(
        self,
        prepared: Prepared,
        plan: CreateRun,
        *,
        folder: Path,
        bounds: Bounds | None,
        progress: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        assert plan.hosted is not None, "the caller looked"
        self._prepared = prepared
        self._plan = plan
        self._hosted = plan.hosted
        self._folder = folder
        self._bounds = bounds
        self._should_stop = should_stop
        self._trainer: Trainer | None = None
        self._sizes = np.array([len(part) for part in prepared.parts.values()])
        local = plan.local
        rules = Rules(
            plan.hosted, plan.seed, local.epochs, local.learning_rate, plan.filters, plan.privacy
        )
        self._rounds = ClientRounds(rules, self._sizes, progress)

    def perform(self, assignment: Assignment, model: bytes | None, own: Own) -> Made:
        """Make the round's one update; ``own`` reads a file that the host keeps between rounds.

        Raises:
            Stopped: the stop was asked for; nothing is kept.
            InvalidInputError: training diverged, or no update is left to aggregate.
        """
        if assignment.kind == "statistics" or model is None:
            return self._file(self._statistics(), {}, {})
        base, _ = weights.decode(model)
        name = f"{assignment.run_id}.{_SERVER}"
        memory = self.memory(assignment.run_id, base, own)
        try:
            trainer = self._trained_by(assignment.statistics)
            made = self._rounds.perform(trainer, assignment.number, base, memory, self._should_stop)
            state = {f"{assignment.run_id}.{k}": v for k, v in memory.indexes().items()}
            if memory.server:
                state[name] = weights.encode(memory.server)
        finally:
            memory.close()
        return self._file(weights.delta(base, made.state), made.metrics, state)

    def memory(self, run_id: str, like: State, own: Own) -> ClientMemory:
        """What the clients and the strategy keep, as the last acknowledged round left it."""
        kept = own(f"{run_id}.{_SERVER}")
        server = {} if kept is None else {k: v.copy() for k, v in weights.decode(kept)[0].items()}

        def states(part: str) -> OwnStates:
            index = own(f"{run_id}.{part}")
            return OwnStates(self._hosted.clients, self._folder / part, index)

        return ClientMemory(self._hosted, like, states, server)

    def _statistics(self) -> State:
        if not isinstance(self._plan.privacy, RecordPlan):
            # The sums over all clients' rows are the sums of the clients' own.
            return local_moments(self._prepared.table, self._prepared.signature)
        bounds, multiplier = statistics_terms(self._plan, self._bounds)
        # Each client draws noise of its own, as a real site does; the host adds what they send.
        return joined_moments(
            [
                private_moments(
                    self._prepared.table.iloc[part],
                    self._prepared.signature,
                    bounds,
                    multiplier,
                )
                for part in self._prepared.parts.values()
            ]
        )

    def _trained_by(self, statistics: Statistics | None) -> Trainer:
        if self._trainer is None:
            assert statistics is not None, "they were aggregated before"
            clients = clients_of(self._prepared, statistics, self._hosted)
            network = network_of(self._plan)
            self._trainer = trainer_of(clients, network, self._plan.local, self._hosted)
        return self._trainer

    def _file(
        self, update: State, metrics: Mapping[str, float], state: Mapping[str, bytes]
    ) -> Made:
        texts = {
            "sample_count": str(int(self._sizes.sum())),
            "metrics": json.dumps(dict(metrics)),
        }
        return Made(weights.encode(update, texts), dict(state))
