"""The host's part in a round: all virtual clients train, one update leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from truststram_lab.federated.participation.ports import Made
from truststram_lab.federated.preparation import Prepared, network_of
from truststram_lab.learning import weights
from truststram_lab.learning.filters import ErrorFeedback
from truststram_lab.learning.statistics import local_moments
from truststram_lab.learning.strategies.scaffold import no_control
from truststram_lab.learning.training import round_seed
from truststram_lab.learning.virtual import Trained, Trainer, Work
from truststram_lab.learning.weights import State
from truststram_lab.schemas.federation import Assignment, CreateRun
from truststram_lab.schemas.simulation import Hosted
from truststram_lab.schemas.strategies import FedProx, Scaffold

from .averaging import Averaging, keeps_back
from .failures import Turn, turns_of
from .wish import clients_of, trainer_of

__all__ = ["HostWork", "host_remembers"]

_CONTROL = "c/"


def host_remembers(plan: CreateRun) -> bool:
    """Whether the host keeps something from round to round, which must survive its kernel."""
    assert plan.hosted is not None, "the caller looked"
    stateless = {"fedavg", "fedprox", "median", "trimmed_mean", "krum", "multi_krum"}
    return plan.hosted.strategy.name not in stateless or _random(plan) or keeps_back(plan.filters)


def _random(plan: CreateRun) -> bool:
    return any(found.type == "gaussian_noise" for found in plan.filters)


class HostWork:
    """What the host does with all clients' rows; they stay in this object.

    Args:
        prepared: the clients' rows.
        progress: told in a few words how far the round is.
        should_stop: asked before each optimizer step.
    """

    def __init__(
        self,
        prepared: Prepared,
        plan: CreateRun,
        *,
        progress: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        assert plan.hosted is not None, "the caller looked"
        self._prepared = prepared
        self._plan = plan
        self._hosted: Hosted = plan.hosted
        self._should_stop = should_stop
        self._trainer: Trainer | None = None
        self._sizes = np.array([len(part) for part in prepared.parts.values()])
        self._averaging = Averaging(
            plan.hosted,
            self._sizes,
            seed=plan.seed,
            filters=plan.filters,
            progress=progress,
        )

    def perform(
        self, assignment: Assignment, model: bytes | None, own: Callable[[str], bytes | None]
    ) -> Made:
        """Make the round's one update; ``own`` reads a file that the host keeps between rounds.

        Raises:
            Stopped: the stop was asked for; nothing is kept.
            InvalidInputError: training diverged, or no update is left to aggregate.
        """
        if assignment.kind == "statistics" or model is None:
            # The sums over all clients' rows are the sums of the clients' own.
            moments = local_moments(self._prepared.table, self._prepared.signature)
            return self._file(moments, {}, {})
        base, _ = weights.decode(model)
        turns = turns_of(self._hosted, self._plan.seed, assignment.number, assignment.local.epochs)
        if len(turns) < self._hosted.strategy.least_updates:
            # So few came that nothing is aggregated: the model stays as it is.
            return self._file(_nothing(base), {}, {})
        memory = _Memory(assignment.run_id, self._hosted, base, own)
        trained = self._train(assignment, base, turns, memory)
        state, metrics = self._averaging.next_model(
            base, turns, trained, memory, assignment.local.learning_rate
        )
        return self._file(weights.delta(base, state), metrics, memory.files())

    def _train(
        self, assignment: Assignment, base: State, turns: list[Turn], memory: _Memory
    ) -> Iterator[Trained]:
        if self._trainer is None:
            assert assignment.statistics is not None, "they were aggregated before"
            clients = clients_of(self._prepared, assignment.statistics, self._hosted)
            network = network_of(self._plan)
            self._trainer = trainer_of(clients, network, assignment.local, self._hosted)
        strategy = self._hosted.strategy
        pull = strategy.mu if isinstance(strategy, FedProx) else 0.0
        works = [
            Work(
                turn.client,
                seed=round_seed(assignment.seed, turn.client, assignment.number),
                epochs=turn.epochs,
                pull=pull,
                correction=memory.correction(turn.client),
            )
            for turn in turns
        ]
        return self._trainer.train(base, works, self._should_stop)

    def _file(
        self, update: State, metrics: Mapping[str, float], state: Mapping[str, bytes]
    ) -> Made:
        texts = {
            "sample_count": str(int(self._sizes.sum())),
            "metrics": json.dumps(dict(metrics)),
        }
        return Made(weights.encode(update, texts), dict(state))


class _Memory:
    """What the host keeps between rounds: the strategy's state, and each client's own."""

    def __init__(
        self, run_id: str, hosted: Hosted, base: State, own: Callable[[str], bytes | None]
    ) -> None:
        self._hosted = hosted
        self._names = {part: f"{run_id}.{part}" for part in ("server", "controls", "residuals")}
        self.server = self._read(own, "server")
        self._residuals: dict[str, State] = {}
        for name, array in self._read(own, "residuals").items():
            client, _, rest = name.partition("/")
            self._residuals.setdefault(client, {})[rest] = array
        self._controls: State = {}
        if isinstance(hosted.strategy, Scaffold):
            zeros = no_control(base)
            self._server_control = self.server or zeros
            self._controls = self._read(own, "controls") or {
                name: np.zeros((hosted.clients, *array.shape), array.dtype)
                for name, array in zeros.items()
            }

    def _read(self, own: Callable[[str], bytes | None], part: str) -> State:
        kept = own(self._names[part])
        return {} if kept is None else {k: v.copy() for k, v in weights.decode(kept)[0].items()}

    def correction(self, client: int) -> State | None:
        """SCAFFOLD's c - c_i, by weight: algorithm 1, line 10."""
        if not self._controls:
            return None
        return {
            name.removeprefix(_CONTROL): self._server_control[name] - own[client]
            for name, own in self._controls.items()
        }

    def new_control(self, client: int, delta: State, path: float) -> State:
        """Keep the client's new control variate, and give what it changed by: lines 12 and 13."""
        change: State = {}
        for name, own in self._controls.items():
            drift = delta[name.removeprefix(_CONTROL)].astype(np.float64) / path
            step = (-drift - self._server_control[name]).astype(own.dtype)
            own[client] += step
            change[name] = step
        return change

    def feedback(self, client: int) -> ErrorFeedback:
        """What the client's filters left unsent."""
        return ErrorFeedback(self._residuals.get(str(client), {}))

    def keep(self, client: int, feedback: ErrorFeedback) -> None:
        """Keep what the client's filters leave unsent now."""
        self._residuals[str(client)] = feedback.residual

    def files(self) -> dict[str, bytes]:
        """Everything, as the files that are stored with the round's update."""
        residuals = {
            f"{client}/{name}": array
            for client, own in self._residuals.items()
            for name, array in own.items()
        }
        parts = {"server": self.server, "controls": self._controls, "residuals": residuals}
        return {self._names[part]: weights.encode(state) for part, state in parts.items() if state}


def _nothing(base: State) -> State:
    return {name: np.zeros_like(array) for name, array in base.items()}
