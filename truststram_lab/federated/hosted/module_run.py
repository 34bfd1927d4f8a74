"""Rounds of any torch module in this kernel; a platform is told of them, if there is one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from truststram_lab.federated.run_spending import RunSpending
from truststram_lab.learning.training import Stopped, round_seed
from truststram_lab.learning.virtual import Evaluation, Trainer, Work
from truststram_lab.learning.weights import State, apply, delta
from truststram_lab.schemas.filters import Filter
from truststram_lab.schemas.personal import AnyPersonal
from truststram_lab.schemas.privacy import PrivacyPlan
from truststram_lab.schemas.run_privacy import RunPrivacy
from truststram_lab.schemas.simulation import Hosted

from .client_memory import ClientMemory
from .module_plan import module_report
from .own_states import OwnStates
from .registration import Registration
from .rounds import ClientRounds, Rules

__all__ = ["ModuleRun", "Plan"]

#: Round number of what each client trains alone, far from any real round.
_ALONE = 2**20


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
    privacy: PrivacyPlan | None = None

    @property
    def personal(self) -> AnyPersonal | None:
        """The clients' own models."""
        return self.hosted.personal


@dataclass
class ModuleRun:
    """Trains a federation; everything it found so far stays readable after an interrupt.

    Args:
        scorer: evaluates the rows of ``scored``, the clients that have any held out.
        progress: told in a few words where it is.
        told: the run on the platform, if it has one.
        spending: its owner's privacy ledger, if it has a budget; ``privacy`` is how that stands.

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
    told: Registration | None = None
    spending: RunSpending | None = None
    privacy: RunPrivacy | None = None
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    alone: list[Evaluation | None] = field(default_factory=list)
    together: list[Evaluation | None] = field(default_factory=list)
    personal: list[Evaluation | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._last: list[Evaluation | None] = []
        self._start = self.state
        self._scored_at = {client: at for at, client in enumerate(self.scored)}
        clients = self.plan.hosted.clients
        self._memory = ClientMemory(self.plan.hosted, self.state, lambda _: OwnStates(clients))
        # Own models are read after the run; their file goes with the last who reads them.
        weakref.finalize(self, self._memory.close)
        rules = Rules(
            self.plan.hosted, self.plan.seed, self.plan.epochs, self.learning_rate,
            self.plan.filters, self.plan.privacy,
        )  # fmt: skip
        self._rounds = ClientRounds(rules, self.sizes, self._say)

    def _say(self, text: str) -> None:
        self.progress(f"round {len(self.history) + 1}, {text}")

    def work(self, announce: Callable[[], Registration | None]) -> Literal["completed", "stopped"]:
        """Train and compare; an interrupt or a stop of the platform's run ends it early.

        Args:
            announce: tells the platform of the run, where there is one.
        """
        try:
            self.told = announce()
            self.train()
            if self.told is not None:
                self.told.finish()
            self.compare()
            self.tell()
        except (KeyboardInterrupt, Stopped):
            return "stopped"
        finally:
            self.close()
            if self.told is not None:
                self.told.end()
        return "completed"

    def train(self) -> None:
        """All rounds; a ``KeyboardInterrupt`` goes through, and leaves the last whole round.

        Raises:
            Stopped: the platform's run was stopped.
        """
        told = self.told
        for number in range(1, self.plan.rounds + 1):
            if told is not None:
                told.wait_for(number)
            if self.spending is not None:
                self.spending.reserve(number)
            made = self._rounds.perform(
                self.trainer, number, self.state, self._memory, self._should_stop
            )
            change = delta(self.state, made.state)
            # As whoever gets the change makes it, to the bit.
            state = apply(self.state, change)
            found = [one for one in self._score(state) if one is not None]
            if told is not None:
                told.push(number, change, int(self.sizes.sum()), made.metrics)
            if self.spending is not None:
                self.spending.release(number)
                self.privacy = self.spending.report(number)
            self.state = state
            self.history.append(
                {
                    "round": number,
                    "clients": made.clients,
                    "train_loss": made.metrics.get("loss"),
                    "loss": _mean([one.loss for one in found], found),
                    "accuracy": _mean([one.accuracy for one in found], found),
                }
            )
            if told is not None:
                self.tell()

    def tell(self) -> None:
        """Report what was measured so far to the platform, if it has the run."""
        if self.told is not None:
            lines, losing = self.lines()
            told = module_report(self, lines if self.alone else [], losing)
            self.told.report(told, int(self.sizes.sum()))

    def _should_stop(self) -> bool:
        return self.told is not None and self.told.stop.is_set()

    def compare(self) -> None:
        """What each client gets of the global model, of its own, and of one trained alone.

        Raises:
            Stopped: the platform's run was stopped.
        """
        self.progress("comparing: the global model")
        self.together = self._score(self.state)
        if self.plan.personal is not None:
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
        for one in self.trainer.train(self._start, works, self._should_stop):
            alone.append(self._score_one(apply(self._start, one.delta), one.client))
        self.alone = alone

    def lines(self) -> tuple[list[dict[str, float | int | None]], list[int]]:
        """One line a client, and the places of those who would do better alone, worst first."""
        kinds = [("local", self.alone), ("global", self.together)]
        if self.plan.personal is not None:
            kinds.append(("personal", self.personal))
        lines: list[dict[str, float | int | None]] = []
        for client, size in enumerate(self.sizes.tolist()):
            line: dict[str, float | int | None] = {"client": client, "rows": size}
            for name, found in kinds:
                one = found[client] if found else None
                line[f"{name}_accuracy"] = None if one is None else one.accuracy
                line[f"{name}_loss"] = None if one is None else one.loss
            lines.append(line)
        gaps = {int(line["client"] or 0): _loses_by(line) for line in lines}
        losing = [client for client, gap in gaps.items() if gap > 0]
        return lines, sorted(losing, key=lambda client: -gaps[client])

    @property
    def scored_rows(self) -> int:
        """Rows that only score, of all clients; the clients' own rows where none is held out."""
        return sum(one.samples for one in self.together or self._last if one is not None)

    def personal_state(self, client: int) -> State:
        """The client's own model; the global one where it never trained."""
        return self._memory.personal(client, self.state)

    def close(self) -> None:
        """Let go of the clients' files but those of their own models, which stay readable."""
        self._memory.forget()

    def _score(self, state: State) -> list[Evaluation | None]:
        self._last = self._scored(state)
        return self._last

    def _scored(self, state: State) -> list[Evaluation | None]:
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


def _loses_by(line: Mapping[str, float | int | None]) -> float:
    """How much better the client is alone than with the global model: accuracy, or loss."""
    alone, together = line["local_accuracy"], line["global_accuracy"]
    if alone is not None and together is not None:
        return float(alone - together)
    alone, together = line["local_loss"], line["global_loss"]
    return 0.0 if alone is None or together is None else float(together - alone)
