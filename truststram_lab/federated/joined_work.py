"""The local work of a site with a table: the house's training, or a function of the site's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning import weights
from truststram_lab.learning.device import best_device
from truststram_lab.learning.privacy.private_training import train_privately
from truststram_lab.learning.strategies import scaffold
from truststram_lab.learning.terms import local_terms
from truststram_lab.learning.training import GradientTerms, round_seed, train
from truststram_lab.learning.weights import State
from truststram_lab.schemas.personal import AnyPersonal
from truststram_lab.schemas.privacy import RecordPlan
from truststram_lab.schemas.sites import SiteScore
from truststram_lab.schemas.strategies import FedAvg, Scaffold
from truststram_lab.schemas.tables import Signature

from .bounds import checked_bounds
from .participation.functions import Evaluated, Trained, Training, adapt, style_of
from .participation.leaving import all_filters, leave
from .participation.performing import SiteWork
from .participation.policy import SitePolicy
from .participation.ports import Made, TellState
from .participation.terms import Terms
from .record_privacy import local_steps, private_moments, site_plan
from .site_personal import CONTROL, KeepsHead, PersonalSite
from .site_spending import SiteSpending
from .site_table import SiteTable

__all__ = ["JoinedWork", "check_function"]

Own = Callable[[str], bytes | None]

_ROWS = ("x", "y")


def check_function(function: Callable[..., Any]) -> None:
    """Refuse what is no training function, before anything is joined.

    Raises:
        InvalidInputError: as ``style_of``.
    """
    style_of(_with_rows(function, np.empty((0, 0)), np.empty(0)))


@dataclass(frozen=True, eq=False)
class JoinedWork:
    """What a site that joined with a table does in each kind of round; a ``Performer``.

    Args:
        table: the site's.
        function: ``train(state)`` or ``fit(parameters, config)``; None trains the run's network
            by minibatch SGD. One with parameters ``x`` and ``y`` gets the rows to train on, as
            the network takes them.
        policy: the site's floor.
        seed_place: the site's own number, so that no two draw the same batches.
        should_stop: looked at before each optimizer step of the house's training.
        personal: the model of its own that the site keeps, if any.
        on_score: told of the scores on the rows held out.
        on_progress: told (steps done, steps in all) of the house's training.
        bounds: numeric column -> (least, greatest possible value), where rows are protected.
        spending: the site's own ledger; None counts nothing.
    """

    table: SiteTable
    function: Callable[..., Any] | None = None
    policy: SitePolicy = field(default_factory=SitePolicy)
    seed_place: int = 0
    should_stop: Callable[[], bool] = lambda: False
    personal: AnyPersonal | None = None
    on_score: Callable[[SiteScore], None] = lambda _: None
    on_progress: Callable[[int, int], None] = lambda *_: None
    bounds: Mapping[str, Any] | None = None
    spending: SiteSpending | None = None

    def objections(self, terms: Terms) -> list[str]:
        """The policy's, and what of this table or training does not fit the run."""
        found = self.policy.objections(terms)
        if terms.signature is None or terms.architecture is None:
            found.append(
                "The run trains named arrays of somebody's own model; join it with a "
                "FederatedClient, a table does not tell how to train them."
            )
            return found
        found += self.table.objections(terms.signature)
        if self.personal is not None:
            found += PersonalSite(self.personal).objections(terms)
        if isinstance(terms.privacy, RecordPlan):
            found += self._record_objections(terms, terms.privacy, terms.signature)
        if not found and self.spending is not None:
            too_much = self.spending.objection(terms)
            found += [] if too_much is None else [too_much]
        return found

    def _record_objections(self, terms: Terms, plan: RecordPlan, signature: Signature) -> list[str]:
        if self.function is not None:
            return [
                "The run asks for record-level privacy, and this site trains by a function of its "
                "own: what that does with single rows cannot be clipped and noised from outside. "
                "Join without --train, so that the run's own network trains here by DP-SGD, or ask "
                "the federation for client-level privacy (--dp-unit client)."
            ]
        found = []
        if plan.delta * self.table.rows >= 1:
            found.append(
                f"The run's delta of {plan.delta:g} allows one of this site's {self.table.rows} "
                "rows to be shown in full; the run wants a smaller --delta."
            )
        if plan.noise_multiplier == 0 or terms.statistics_noise == 0:
            found.append(
                "The run's plan is called record-level privacy and adds no noise; the run wants "
                "a noise multiplier above 0."
            )
        try:
            checked_bounds(self.bounds, signature)
        except InvalidInputError as error:
            found.append(error.message)
        return found

    def perform(self, terms: Terms, model: bytes | None, tell: TellState, own: Own) -> Made:
        """Do the round, its epsilon reserved before any noise is drawn; see ``Performer``."""
        if self.spending is not None:
            self.spending.reserve(terms)
        if terms.kind == "statistics" and isinstance(terms.privacy, RecordPlan):
            return self._private_statistics(terms, tell)
        if terms.kind != "training" or self.personal is None:
            return self._shared(terms, model, tell, own)
        _decoded(terms, model)
        return PersonalSite(self.personal).perform(
            terms,
            model or b"",
            own,
            lambda model, wrap: self._shared(terms, model, tell, own, wrap),
            partial(self._alone, terms),
        )

    def _shared(
        self,
        terms: Terms,
        model: bytes | None,
        tell: TellState,
        own: Own,
        wrap: KeepsHead | None = None,
    ) -> Made:
        if terms.kind == "training" and self.function is None:
            if isinstance(terms.strategy, Scaffold):
                return self._scaffold(terms, _decoded(terms, model), tell, own)
            # The pull is in the house's own gradient; a hook would wait for a torch optimizer.
            mu = terms.proximal_mu
            work = self._site_work(terms, GradientTerms(pull=mu) if mu else None, own, wrap)
            return work.perform(replace(terms, strategy=FedAvg()), model, tell, own)
        return self._site_work(terms, None, own, wrap).perform(terms, model, tell, own)

    def _private_statistics(self, terms: Terms, tell: TellState) -> Made:
        """Moments of bounds, or noised ones: no exact mean leaves under record-level privacy."""
        assert terms.signature is not None, "objections looked"
        tell("local_training")
        bounds = checked_bounds(self.bounds, terms.signature)
        features = self.table.features
        moments = private_moments(features, terms.signature, bounds, terms.statistics_noise)
        texts = {"sample_count": str(len(features)), "metrics": "{}"}
        return Made(weights.encode(moments, texts))

    def _site_work(
        self, terms: Terms, added: GradientTerms | None, own: Own, wrap: KeepsHead | None
    ) -> SiteWork:
        training: Training = _House(self, terms, added)
        if self.function is not None and terms.kind == "training":
            training = self._functions_training(self.function, terms)
        return SiteWork(
            training if wrap is None else wrap(training),
            evaluate=partial(self._evaluate, own),
            columns=self.table.features,
            policy=self.policy,
        )

    def _functions_training(self, function: Callable[..., Any], terms: Terms) -> Training:
        x, y = self.table.training_rows(terms)
        return adapt(_with_rows(function, x, y))

    def _alone(self, terms: Terms, model: State, anchor: State, pull: float) -> State:
        """The model after training for this site alone, pulled to ``anchor``; it never leaves,
        so no privacy of the run is spent for it."""
        if self.function is None:
            return self._plainly(model, terms, GradientTerms(pull=pull, anchor=anchor)).state
        training = self._functions_training(self.function, terms)
        if not pull:
            return training(model, terms.config).state
        with local_terms(model, pull=pull, anchor=anchor):
            return training(model, terms.config).state

    def _evaluate(self, own: Own, state: State, terms: Terms) -> Evaluated:
        score, loss = self.table.scored(state, terms)
        told = SiteScore(number=terms.number, loss=loss, score=score)
        whole = None
        if self.personal is not None:
            whole = PersonalSite(self.personal).scored(state, terms, own)
        if whole is not None:
            personal, personal_loss = self.table.scored(whole, terms)
            told = told.model_copy(update={"personal": personal, "personal_loss": personal_loss})
        self.on_score(told)
        found = {f"recall/{name}": share for name, share in score.recall.items()}
        return Evaluated(score.rows, {"loss": loss, "accuracy": score.accuracy, **found})

    def house(self, base: State, terms: Terms, added: GradientTerms | None) -> Trained:
        """Minibatch SGD on the rows that are trained on; DP-SGD where the run protects them."""
        assert terms.architecture is not None
        x, y = self.table.training_rows(terms)
        if isinstance(terms.privacy, RecordPlan):
            trained, metrics = train_privately(
                terms.architecture,
                base,
                x,
                y,
                terms.local,
                site_plan(terms.privacy, len(y)),
                best_device(),
                self.should_stop,
                self.on_progress,
                terms=added,
            )
            return Trained(trained, len(y), metrics)
        return self._plainly(base, terms, added)

    def _plainly(self, base: State, terms: Terms, added: GradientTerms | None) -> Trained:
        assert terms.architecture is not None
        x, y = self.table.training_rows(terms)
        trained, metrics = train(
            terms.architecture,
            base,
            x,
            y,
            terms.local,
            round_seed(terms.seed, self.seed_place, terms.number),
            best_device(),
            self.should_stop,
            self.on_progress,
            added,
        )
        return Trained(trained, len(y), metrics)

    def _scaffold(self, terms: Terms, found: State, tell: TellState, own: Own) -> Made:
        if terms.local.momentum:
            raise InvalidInputError(
                f"SCAFFOLD's control variate needs plain SGD, and the run has a momentum of "
                f"{terms.local.momentum:g}; the run wants --strategy fedprox, or momentum 0.",
                field="momentum",
            )
        base = {name: array for name, array in found.items() if not name.startswith(CONTROL)}
        server = {name: array for name, array in found.items() if name.startswith(CONTROL)}
        server = server or scaffold.no_control(base)
        kept = {name: own(f"{terms.run_id}.{name}") for name in ("control", "residual")}
        former = _state(kept["control"]) or scaffold.no_control(base)
        tell("local_training")
        correction = scaffold.correction(server, former)
        trained = self.house(base, terms, GradientTerms(correction=correction))
        steps = local_steps(terms.privacy, self.table.rows, terms.local)
        path = steps * terms.local.learning_rate
        new = scaffold.new_control(server, former, base, trained.state, path)
        update = scaffold.upload(weights.delta(base, trained.state), former, new)
        filters = all_filters(terms, self.policy.own_filters)
        residual = _state(kept["residual"])
        body, left = leave(update, trained.samples, trained.metrics, filters, residual, tell)
        after: dict[str, bytes | None] = {f"{terms.run_id}.control": weights.encode(new)}
        if left is not None:
            after[f"{terms.run_id}.residual"] = weights.encode(left)
        if terms.number == terms.rounds:  # nothing of the run is wanted any more
            after = dict.fromkeys(after)
        return Made(body, after)


@dataclass(frozen=True, eq=False)
class _House:
    """The house's training, as ``SiteWork`` calls it."""

    work: JoinedWork
    terms: Terms
    added: GradientTerms | None

    @property
    def module(self) -> None:
        return None

    def __call__(self, base: State, config: Mapping[str, Any]) -> Trained:  # noqa: ARG002
        # The terms have everything that a config tells to a function of the site's own.
        return self.work.house(base, self.terms, self.added)


def _with_rows(function: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> Callable[..., Any]:
    """The function with its ``x`` and ``y`` filled in, where it has parameters of these names."""
    if not callable(function):
        return function  # style_of says what it is
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin that does not tell
        return function
    given = {name: rows for name, rows in zip(_ROWS, (x, y), strict=True) if name in names}
    return partial(function, **given) if given else function


def _decoded(terms: Terms, model: bytes | None) -> State:
    if model is None:
        raise InvalidInputError(
            f"Round {terms.number} of run {terms.run} came without a model; upgrade the platform."
        )
    return weights.decode(model)[0]


def _state(body: bytes | None) -> State | None:
    return None if body is None else weights.decode(body)[0]
