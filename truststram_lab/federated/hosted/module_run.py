"""Rounds of any torch module in this kernel, without a platform."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from truststram_lab.learning.personal import join, split_head
from truststram_lab.learning.training import round_seed
from truststram_lab.learning.virtual import ClientStates, Evaluation, Trained, Trainer, Work
from truststram_lab.learning.weights import State, apply
from truststram_lab.schemas.filters import Filter
from truststram_lab.schemas.personal import AnyPersonal, Ditto, FedPer
from truststram_lab.schemas.simulation import Hosted
from truststram_lab.schemas.strategies import FedProx

from .averaging import Averaging
from .failures import Turn, turns_of
from .kernel_memory import KernelMemory

__all__ = ["ModuleRun", "Plan"]

#: Round numbers of what is no round of the federation, so that no seed is shared.
_ALONE, _PERSONAL = 2**20, 2**21
#: Clients whose own weights or corrections are in memory at once, where the loop trains one.
_AT_ONCE = 64


@dataclass(frozen=True)
class Plan:
    """What all rounds have in common.

    Args:
        epochs: passes of a client over its rows in a round.
    """

    hosted: Hosted
    rounds: int
    epochs: int
    seed: int
    filters: Sequence[Filter] = ()
    personal: AnyPersonal | None = None


@dataclass
class ModuleRun:
    """Trains a federation; everything it found so far stays readable after an interrupt.

    Args:
        scorer: evaluates the rows of ``scored``, the clients that have any held out.
        progress: told in a few words where it is.

    Attributes:
        state: the global model after the last complete round.
        history: one line a round: clients, loss in training, loss and accuracy on held-out rows.
    """

    plan: Plan
    trainer: Trainer
    scorer: Trainer | None
    scored: Sequence[int]
    sizes: np.ndarray
    learning_rate: float | None
    state: State
    progress: Callable[[str], None]
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    alone: list[Evaluation | None] = field(default_factory=list)
    together: list[Evaluation | None] = field(default_factory=list)
    personal: list[Evaluation | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._start = self.state
        self._scored_at = {client: at for at, client in enumerate(self.scored)}
        self._memory = KernelMemory(self.plan.hosted, self.state)
        self._own: ClientStates | None = None
        if self.plan.personal is not None:
            self._own = ClientStates(self.plan.hosted.clients, self._kept(self.state))
            # Own models are read after the run; their file goes with the last who reads them.
            weakref.finalize(self, self._own.close)
        self._averaging = Averaging(
            self.plan.hosted,
            self.sizes,
            seed=self.plan.seed,
            filters=self.plan.filters,
            progress=lambda text: self.progress(f"round {len(self.history) + 1}, {text}"),
        )

    def train(self) -> None:
        """All rounds; a ``KeyboardInterrupt`` goes through, and leaves the last whole round."""
        hosted = self.plan.hosted
        for number in range(1, self.plan.rounds + 1):
            turns = turns_of(hosted, self.plan.seed, number, self.plan.epochs)
            state, loss = self.state, None
            if len(turns) >= hosted.strategy.least_updates:
                trained = self._updates(turns, number)
                state, metrics = self._averaging.next_model(
                    self.state, turns, trained, self._memory, self.learning_rate
                )
                loss = metrics["loss"]
                self._train_personal(turns, number)
            found = [one for one in self._score(state) if one is not None]
            self.state = state
            self.history.append(
                {
                    "round": number,
                    "clients": len(turns),
                    "train_loss": loss,
                    "loss": _mean([one.loss for one in found], found),
                    "accuracy": _mean([one.accuracy for one in found], found),
                }
            )

    def compare(self) -> None:
        """What each client gets of the global model, of its own, and of one trained alone."""
        self.progress("comparing: the global model")
        self.together = self._score(self.state)
        if self._own is not None:
            self.progress("comparing: each client's own model")
            self.personal = [self._score_one(self.personal_state(place), place)
                             for place in range(len(self.sizes))]  # fmt: skip
        self.progress("comparing: each client alone")
        works = [
            Work(place, round_seed(self.plan.seed, place, _ALONE),
                 epochs=self.plan.epochs * self.plan.rounds)
            for place in range(len(self.sizes))
        ]  # fmt: skip
        alone = []
        for one in self.trainer.train(self._start, works):
            alone.append(self._score_one(apply(self._start, one.delta), one.client))
        self.alone = alone

    def personal_state(self, client: int) -> State:
        """The client's own model; the global one where it never trained."""
        if self._own is None or client not in self._own:
            return self.state
        if isinstance(self.plan.personal, FedPer):
            shared, _ = split_head(self.state, self.plan.personal.head)
            return join(self.state, shared, self._own[client])
        return self._own[client]

    def close(self) -> None:
        """Let go of the clients' files but those of their own models, which stay readable."""
        self._memory.close()

    def _kept(self, state: State) -> State:
        if isinstance(self.plan.personal, FedPer):
            return split_head(state, self.plan.personal.head)[1]
        return state

    def _updates(self, turns: Sequence[Turn], number: int) -> Iterator[Trained]:
        strategy, heads = self.plan.hosted.strategy, isinstance(self.plan.personal, FedPer)

        def work(turn: Turn) -> Work:
            return Work(
                turn.client,
                seed=round_seed(self.plan.seed, turn.client, number),
                epochs=turn.epochs,
                pull=strategy.mu if isinstance(strategy, FedProx) else 0.0,
                correction=self._memory.correction(turn.client),
                start=self.personal_state(turn.client) if heads else None,
            )

        # Only what is each client's own needs slices; all others may be sorted by size.
        own = heads or self._memory.correction(turns[0].client) is not None
        size = max(self.trainer.chunk, _AT_ONCE) if own else len(turns)
        for first in range(0, len(turns), size):
            works = [work(turn) for turn in turns[first : first + size]]
            for one in self.trainer.train(self.state, works):
                yield self._without_head(one) if heads else one

    def _without_head(self, one: Trained) -> Trained:
        """FedPer: the head is kept, and what leaves changes nothing of the global one."""
        assert self._own is not None
        before = self.personal_state(one.client)
        self._own[one.client] = self._kept(apply(before, one.delta))
        kept = self._kept(before)
        delta = {k: np.zeros_like(v) if k in kept else v for k, v in one.delta.items()}
        return Trained(one.client, delta, one.samples, one.steps, one.loss, one.losses)

    def _train_personal(self, turns: Sequence[Turn], number: int) -> None:
        """Ditto: every client of the round also trains its own model, pulled to the global one."""
        if self._own is None or not isinstance(self.plan.personal, Ditto):
            return
        size = max(self.trainer.chunk, _AT_ONCE)
        for first in range(0, len(turns), size):
            starts = {turn.client: self.personal_state(turn.client)
                      for turn in turns[first : first + size]}  # fmt: skip
            works = [
                Work(
                    turn.client,
                    seed=round_seed(self.plan.seed, turn.client, _PERSONAL + number),
                    epochs=turn.epochs,
                    start=starts[turn.client],
                    pull=self.plan.personal.strength,
                    anchor=self.state,
                )
                for turn in turns[first : first + size]
            ]
            for one in self.trainer.train(self.state, works):
                self._own[one.client] = apply(starts[one.client], one.delta)

    def _score(self, state: State) -> list[Evaluation | None]:
        found: list[Evaluation | None] = [None] * len(self.sizes)
        if self.scorer is not None:
            for place, one in zip(self.scored, self.scorer.evaluate(state), strict=True):
                found[place] = one
        return found

    def _score_one(self, state: State, client: int) -> Evaluation | None:
        if self.scorer is None or client not in self._scored_at:
            return None
        return self.scorer.evaluate(state, [self._scored_at[client]])[0]


def _mean(values: Sequence[float | None], of: Sequence[Evaluation]) -> float | None:
    """Weighted by held-out rows; None where one is missing."""
    if not of or any(value is None for value in values):
        return None
    return float(
        np.average([float(value or 0) for value in values], weights=[e.samples for e in of])
    )
