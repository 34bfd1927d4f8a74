"""The local work of each kind of round."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning import weights
from truststram_lab.learning.statistics import local_moments
from truststram_lab.learning.strategies import scaffold
from truststram_lab.learning.terms import LocalTerms, local_terms
from truststram_lab.learning.weights import State
from truststram_lab.schemas.privacy import RecordPlan
from truststram_lab.schemas.strategies import Scaffold

from .functions import Evaluated, Trained, Training
from .leaving import all_filters, leave
from .policy import SitePolicy
from .ports import Made, TellState
from .terms import Terms

__all__ = ["SiteWork"]

Own = Callable[[str], bytes | None]

#: How the platform's control variate is named in a model's file.
_CONTROL = "c/"


@dataclass(frozen=True, eq=False)
class SiteWork:
    """What one site can do in a round.

    Args:
        train: local training.
        evaluate: local evaluation, for evaluation rounds.
        initial: gives the parameters to begin with, where the run has none.
        columns: the site's table by column, for the statistics round.
        policy: the site's floor.
    """

    train: Training
    evaluate: Callable[[State, Terms], Evaluated] | None = None
    initial: Callable[[], State] | None = None
    columns: Any = None
    policy: SitePolicy = field(default_factory=SitePolicy)

    def objections(self, terms: Terms) -> list[str]:
        """The policy's, and what this site cannot do."""
        found = self.policy.objections(terms)
        if terms.kind == "statistics" and self.columns is None:
            found.append(
                "This site's training function brings no table, so it has no column statistics to "
                "give; join with --data."
            )
        if terms.kind == "evaluation" and self.evaluate is None:
            found.append("This site has no evaluation function.")
        if terms.kind == "initial" and self.initial is None:
            found.append("This site has no parameters to begin with.")
        if terms.kind == "training" and isinstance(terms.privacy, RecordPlan):
            found.append(
                "The run asks for record-level privacy, and this site trains by a function of its "
                "own: what that does with single rows cannot be clipped and noised from outside. "
                "Join with %ts_join and a table, without --train, or ask the federation for "
                "client-level privacy (--dp-unit client)."
            )
        return found

    def perform(self, terms: Terms, model: bytes | None, tell: TellState, own: Own) -> Made:
        """Do the round; see ``Performer``."""
        if terms.kind == "statistics":
            return self._statistics(terms, tell)
        if terms.kind == "initial":
            return self._initial(tell)
        if model is None:
            raise InvalidInputError(
                f"Round {terms.number} of run {terms.run} came without a model; upgrade the "
                "platform."
            )
        found, _ = weights.decode(model)
        base = {name: array for name, array in found.items() if not name.startswith(_CONTROL)}
        if terms.kind == "evaluation":
            return self._evaluation(terms, base, tell)
        if isinstance(terms.strategy, Scaffold):
            server = {name: array for name, array in found.items() if name.startswith(_CONTROL)}
            return self._scaffold(terms, base, server or scaffold.no_control(base), tell, own)
        tell("local_training")
        with self._pulled(base, terms.proximal_mu):
            trained = self.train(base, terms.config)
        return self._made(terms, weights.delta(base, trained.state), trained, {}, tell, own)

    @contextlib.contextmanager
    def _pulled(self, base: State, mu: float) -> Iterator[LocalTerms | None]:
        if not mu:
            yield None
            return
        with local_terms(base, pull=mu, module=self.train.module) as terms:
            yield terms

    def _scaffold(
        self, terms: Terms, base: State, server: State, tell: TellState, own: Own
    ) -> Made:
        name = f"{terms.run_id}.control"
        kept = own(name)
        former = weights.decode(kept)[0] if kept is not None else scaffold.no_control(base)
        tell("local_training")
        correction = scaffold.correction(server, former)
        with local_terms(base, correction=correction, module=self.train.module) as applied:
            trained = self.train(base, terms.config)
        new = scaffold.new_control(server, former, base, trained.state, applied.path)
        update = scaffold.upload(weights.delta(base, trained.state), former, new)
        return self._made(terms, update, trained, {name: weights.encode(new)}, tell, own)

    def _made(
        self,
        terms: Terms,
        update: State,
        trained: Trained,
        state: dict[str, bytes],
        tell: TellState,
        own: Own,
    ) -> Made:
        name = f"{terms.run_id}.residual"
        kept = own(name)
        residual = None if kept is None else weights.decode(kept)[0]
        filters = all_filters(terms, self.policy.own_filters)
        body, left = leave(update, trained.samples, trained.metrics, filters, residual, tell)
        after: dict[str, bytes | None] = dict(state)
        if left is not None:
            after[name] = weights.encode(left)
        if terms.number == terms.rounds:  # nothing of the run is wanted any more
            after = dict.fromkeys(after)
        return Made(body, after)

    def _statistics(self, terms: Terms, tell: TellState) -> Made:
        if terms.signature is None:
            raise InvalidInputError(
                f"Run {terms.run} asks for statistics but names no columns; upgrade the platform."
            )
        tell("local_training")
        moments = local_moments(self.columns, terms.signature)
        rows = int(np.asarray(moments["rows"]).reshape(-1)[0])
        return Made(weights.encode(moments, {"sample_count": str(rows), "metrics": "{}"}))

    def _initial(self, tell: TellState) -> Made:
        assert self.initial is not None
        tell("update_preparing")
        return Made(weights.encode(self.initial(), {"sample_count": "1", "metrics": "{}"}))

    def _evaluation(self, terms: Terms, base: State, tell: TellState) -> Made:
        assert self.evaluate is not None
        tell("local_eval")
        found = self.evaluate(base, terms)
        metrics = {**found.metrics, "rows": float(found.samples)}
        metadata = {"sample_count": str(found.samples), "metrics": json.dumps(metrics)}
        return Made(weights.encode({}, metadata))
