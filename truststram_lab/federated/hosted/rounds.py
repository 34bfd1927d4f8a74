"""A round of all virtual clients: who trains, what they keep, and the one model of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from truststram_lab.federated.record_privacy import site_plan
from truststram_lab.learning.personal import split_head
from truststram_lab.learning.privacy.mechanisms import cohort
from truststram_lab.learning.training import round_seed
from truststram_lab.learning.virtual import Trained, Trainer, Work
from truststram_lab.learning.weights import State, apply
from truststram_lab.schemas.filters import Filter
from truststram_lab.schemas.personal import Ditto, FedPer
from truststram_lab.schemas.privacy import ClientPlan, PrivacyPlan, RecordPlan
from truststram_lab.schemas.simulation import Hosted
from truststram_lab.schemas.strategies import FedProx

from .averaging import Averaging
from .client_memory import ClientMemory
from .failures import Turn, turns_of

__all__ = ["ClientRounds", "RoundMade", "Rules"]

#: Round numbers of the clients' own models, so that no seed is shared.
_PERSONAL = 2**21
#: Clients whose own weights or corrections are in memory at once, where the loop trains one.
_AT_ONCE = 64


@dataclass(frozen=True)
class Rules:
    """What all rounds have in common.

    Args:
        epochs: passes of a client over its rows in a round.
        learning_rate: of the local optimizer; SCAFFOLD alone needs it.
        privacy: of a row or of a client; the noise of both is drawn in this kernel.
    """

    hosted: Hosted
    seed: int
    epochs: int
    learning_rate: float | None = None
    filters: Sequence[Filter] = ()
    privacy: PrivacyPlan | None = None


@dataclass(frozen=True, eq=False)
class RoundMade:
    """The global model after a round; ``metrics`` may be told, ``clients`` is a secret where
    privacy depends on who was asked.

    Attributes:
        trained: whether there was anything to aggregate; if not, the model is as it was.
    """

    state: State
    metrics: dict[str, float]
    clients: int
    trained: bool


class ClientRounds:
    """Trains all virtual clients of a round.

    Args:
        sizes: rows of each client, int (clients,).
        progress: told in a few words how far the round is.
    """

    def __init__(self, rules: Rules, sizes: np.ndarray, progress: Callable[[str], None]) -> None:
        self._rules = rules
        self._sizes = sizes
        self._personal = rules.hosted.personal
        central = rules.privacy if isinstance(rules.privacy, ClientPlan) else None
        self._central = central
        self._averaging = Averaging(
            rules.hosted,
            sizes,
            seed=rules.seed,
            filters=rules.filters,
            privacy=central,
            # How many were drawn is a part of the secret.
            progress=_silent if central is not None and central.cohort_rate < 1 else progress,
        )

    def perform(
        self,
        trainer: Trainer,
        number: int,
        base: State,
        memory: ClientMemory,
        should_stop: Callable[[], bool],
    ) -> RoundMade:
        """Training round ``number``, from ``base``.

        Raises:
            Stopped: ``should_stop`` said so, asked before each optimizer step.
            InvalidInputError: training diverged, or the mean is no longer a number.
        """
        turns = self._turns(number)
        if self._central is None and len(turns) < self._rules.hosted.strategy.least_updates:
            # So few came that nothing is aggregated: the model stays as it is.
            return RoundMade(dict(base), {}, len(turns), trained=False)
        trained = self._updates(trainer, turns, number, base, memory, should_stop)
        state, metrics = self._averaging.next_model(
            base, turns, trained, memory, self._rules.learning_rate
        )
        if isinstance(self._personal, Ditto):
            self._train_personal(trainer, turns, number, base, memory, should_stop)
        return RoundMade(state, metrics, len(turns), trained=True)

    def _turns(self, number: int) -> list[Turn]:
        rules = self._rules
        drawn = None
        if self._central is not None:
            # By a key that is kept nowhere: only a secret sample amplifies.
            drawn = cohort(rules.hosted.clients, self._central.cohort_rate)
        return turns_of(rules.hosted, rules.seed, number, rules.epochs, asked=drawn)

    def _updates(
        self,
        trainer: Trainer,
        turns: Sequence[Turn],
        number: int,
        base: State,
        memory: ClientMemory,
        should_stop: Callable[[], bool],
    ) -> Iterator[Trained]:
        heads = self._personal if isinstance(self._personal, FedPer) else None
        for part in self._slices(trainer, turns, own=heads is not None or memory.corrects):
            works = [self._work(turn, number, base, memory, own=heads is not None) for turn in part]
            for one in trainer.train(base, works, should_stop):
                if heads is None:
                    yield one
                    continue
                # FedPer: the head is kept, and what leaves changes nothing of the global one.
                memory.keep_personal(
                    one.client, apply(memory.personal(one.client, base), one.delta)
                )
                kept = split_head(base, heads.head)[1]
                delta = {k: np.zeros_like(v) if k in kept else v for k, v in one.delta.items()}
                yield Trained(one.client, delta, one.samples, one.steps, one.loss, one.losses)

    def _work(
        self, turn: Turn, number: int, base: State, memory: ClientMemory, *, own: bool
    ) -> Work:
        strategy = self._rules.hosted.strategy
        return Work(
            turn.client,
            seed=round_seed(self._rules.seed, turn.client, number),
            epochs=turn.epochs,
            pull=strategy.mu if isinstance(strategy, FedProx) else 0.0,
            correction=memory.correction(turn.client),
            start=memory.personal(turn.client, base) if own else None,
            private=self._private(turn),
        )

    def _private(self, turn: Turn) -> RecordPlan | None:
        """DP-SGD of one client: its sums are divided by its own sample; a straggler takes fewer
        of the plan's steps, and spends less than is charged."""
        plan = self._rules.privacy
        if not isinstance(plan, RecordPlan):
            return None
        own = site_plan(plan, int(self._sizes[turn.client]))
        steps = max(1, plan.steps_per_round * turn.epochs // self._rules.epochs)
        return own.model_copy(update={"steps_per_round": steps})

    def _train_personal(
        self,
        trainer: Trainer,
        turns: Sequence[Turn],
        number: int,
        base: State,
        memory: ClientMemory,
        should_stop: Callable[[], bool],
    ) -> None:
        """Ditto: every client of the round also trains its own model, pulled to the global one.

        It stays at the client, so that no noise is added to it.
        """
        assert isinstance(self._personal, Ditto), "the caller looked"
        for part in self._slices(trainer, turns, own=True):
            starts = {turn.client: memory.personal(turn.client, base) for turn in part}
            works = [
                Work(
                    turn.client,
                    seed=round_seed(self._rules.seed, turn.client, _PERSONAL + number),
                    epochs=turn.epochs,
                    start=starts[turn.client],
                    pull=self._personal.strength,
                    anchor=base,
                )
                for turn in part
            ]
            for one in trainer.train(base, works, should_stop):
                memory.keep_personal(one.client, apply(starts[one.client], one.delta))

    @staticmethod
    def _slices(trainer: Trainer, turns: Sequence[Turn], *, own: bool) -> Iterator[Sequence[Turn]]:
        # Only what is each client's own needs slices; all others may be sorted by size. A slice
        # is a whole number of the windows that the trainer sorts in.
        window = 4 * trainer.chunk
        size = window * -(-_AT_ONCE // window) if own else max(len(turns), 1)
        for first in range(0, len(turns), size):
            yield turns[first : first + size]


def _silent(text: str) -> None:
    del text
