"""A site's own model beside the federation's: kept here, trained here, and never sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning import weights
from truststram_lab.learning.network import expected_shapes
from truststram_lab.learning.personal import join, split_head
from truststram_lab.learning.weights import State
from truststram_lab.schemas.personal import AnyPersonal, Ditto, FedPer
from truststram_lab.schemas.privacy import RecordPlan
from truststram_lab.schemas.strategies import Scaffold

from .participation.functions import Trained, Training
from .participation.ports import Made
from .participation.terms import Terms

__all__ = ["PERSONAL", "KeepsHead", "PersonalSite", "read_personal"]

#: The file in the site's own state; it is replaced when a round's receipt has come.
PERSONAL = "personal"
#: How the platform's control variate is named in a model's file.
CONTROL = "c/"
_RUN = "run_id"

Own = Callable[[str], bytes | None]
#: (model, anchor, lambda) -> the model after training.
Alone = Callable[[State, State, float], State]


class Share(Protocol):
    """Makes the shared update of a model file; ``wrap`` changes the training that it uses."""

    def __call__(self, model: bytes, wrap: KeepsHead | None) -> Made: ...


@dataclass(frozen=True)
class PersonalSite:
    """What a site does for its personal model in a round."""

    kind: AnyPersonal

    def objections(self, terms: Terms) -> list[str]:
        """What of the run speaks against this personal model, one sentence each."""
        if not isinstance(self.kind, FedPer) or terms.architecture is None:
            return []
        if isinstance(terms.strategy, Scaffold):
            return [
                "SCAFFOLD corrects every layer of the shared model, and FedPer keeps some here; "
                "join with --personal ditto."
            ]
        if isinstance(terms.privacy, RecordPlan):
            return [
                "The run's record-level privacy trains the shared model as a whole, and FedPer "
                "keeps some layers here; join with --personal ditto."
            ]
        shapes = expected_shapes(terms.architecture)
        try:
            split_head({name: np.empty(shape) for name, shape in shapes.items()}, self.kind.head)
        except InvalidInputError as error:
            return [error.message]
        return []

    def scored(self, shared: State, terms: Terms, own: Own) -> State | None:
        """The personal model beside the round's ``shared`` one; None before its first round."""
        kept = read_personal(own(PERSONAL), terms.run_id)
        return None if kept is None else self._whole(kept, shared)

    def _whole(self, kept: State | None, shared: State) -> State:
        if kept is None:
            return shared
        return kept if isinstance(self.kind, Ditto) else {**shared, **kept}

    def perform(self, terms: Terms, model: bytes, own: Own, share: Share, alone: Alone) -> Made:
        """A training round: the shared update, and the personal model after it, which stays.

        Args:
            model: the round's model file.
            own: reads a file of the site's own state.
            share: makes the shared update of a model file.
            alone: trains a model on the site's rows, pulled to another.

        Raises:
            InvalidInputError: the site's function takes no step with a torch optimizer, so that
                Ditto's pull could not come in; or training diverged.
        """
        found, _ = weights.decode(model)
        kept = read_personal(own(PERSONAL), terms.run_id)
        if isinstance(self.kind, Ditto):
            made = share(model, None)
            base = {n: array for n, array in found.items() if not n.startswith(CONTROL)}
            personal = alone(self._whole(kept, base), base, self.kind.strength)
        else:
            personal = {}
            head = KeepsHead(self.kind.head, personal)
            made = share(weights.encode({**found, **(kept or {})}), head)
        state = {**made.state, PERSONAL: weights.encode(personal, {_RUN: terms.run_id})}
        return replace(made, state=state)


@dataclass(frozen=True, eq=False)
class KeepsHead:
    """FedPer: training whose head stays. What it gives has the head as it came, so that the
    update is zero there; the trained head goes to ``trained``."""

    head: list[str]
    trained: State

    def __call__(self, training: Training) -> Training:
        """The same training, with its head kept."""
        return _Kept(training, self)


@dataclass(frozen=True, eq=False)
class _Kept:
    training: Training
    keeper: KeepsHead

    @property
    def module(self) -> Any:
        return self.training.module

    def __call__(self, base: State, config: Mapping[str, Any]) -> Trained:
        found = self.training(base, config)
        _, before = split_head(base, self.keeper.head)
        body, after = split_head(found.state, self.keeper.head)
        self.keeper.trained.update(after)
        return Trained(join(base, body, before), found.samples, found.metrics)


def read_personal(body: bytes | None, run_id: str | None = None) -> State | None:
    """A site's file of its personal model; None where there is none, or it is of another run."""
    if body is None:
        return None
    found, texts = weights.decode(body)
    return found if run_id in (None, texts.get(_RUN)) else None
