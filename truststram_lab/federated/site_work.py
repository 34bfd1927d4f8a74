"""The local work of a simulated site in each kind of round, on its own table."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning import weights
from truststram_lab.learning.device import best_device
from truststram_lab.learning.privacy.private_training import train_privately
from truststram_lab.learning.statistics import local_moments
from truststram_lab.learning.strategies import scaffold
from truststram_lab.learning.training import GradientTerms, round_seed, train
from truststram_lab.learning.weights import State
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.schemas.federation import Assignment, CreateRun
from truststram_lab.schemas.filters import (
    Filter,
    GaussianNoise,
    GradientClip,
    NormValidation,
)
from truststram_lab.schemas.privacy import ClientPlan, RecordPlan
from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.strategies import FedProx, Scaffold
from truststram_lab.schemas.tables import Statistics

from .bounds import Bounds
from .participation.leaving import leave
from .participation.ports import Made
from .preparation import Prepared, SiteData, network_of
from .record_privacy import local_steps, private_moments, site_plan, statistics_terms

__all__ = ["TableWork", "check_together", "model_and_control", "remembers"]

#: How the platform's control variates are named in a model's file.
_CONTROL = "c/"


def remembers(plan: CreateRun) -> bool:
    """Whether a site's update must be stored before it leaves: because noise in it must not be
    drawn twice, or because the site keeps something from round to round."""
    kept = any(not isinstance(found, GradientClip | NormValidation) for found in plan.filters)
    return kept or plan.privacy is not None or isinstance(plan.strategy, Scaffold)


def model_and_control(body: bytes) -> tuple[State, State]:
    """A round's model file: the global model, and SCAFFOLD's control variate, else nothing."""
    found, _ = weights.decode(body)
    model = {name: array for name, array in found.items() if not name.startswith(_CONTROL)}
    control = {name: array for name, array in found.items() if name.startswith(_CONTROL)}
    return model, control


def check_together(plan: CreateRun) -> None:
    """Refuse what does not go together in a plan.

    Raises:
        InvalidInputError: the sentence names both, and what to leave out.
    """
    strategy = plan.sites_strategy
    if isinstance(strategy, Scaffold) and plan.local.momentum:
        raise InvalidInputError(
            f"SCAFFOLD's control variate needs plain SGD, but the sites train with momentum "
            f"{plan.local.momentum:g}; leave it out, or choose --strategy fedprox.",
            field="strategy",
        )
    if plan.privacy is None:
        return
    record = isinstance(plan.privacy, RecordPlan)
    if isinstance(strategy, Scaffold) or (record and isinstance(strategy, FedProx)):
        why = "private training adds no term of a strategy to its gradients"
        if not record:
            why = "a site's control variate would leave beside the update that is clipped"
        raise InvalidInputError(
            f"--dp and --strategy {strategy.name} do not go together: {why}; choose fedavg, "
            "fedavgm, fedadam or fedyogi.",
            field="strategy",
        )
    if isinstance(plan.privacy, ClientPlan) and strategy.sees_single_updates:
        raise InvalidInputError(
            f"--dp-unit client and --strategy {strategy.name} do not go together: the noise "
            "hides a site in the mean, and this rule looks at single updates; choose fedavg.",
            field="strategy",
        )
    if isinstance(plan.privacy, ClientPlan) and plan.hosted is not None and plan.filters:
        raise InvalidInputError(
            "--dp-unit client clips every update as a whole, and filters would come between the "
            "clip and the noise; leave the filters out.",
            field="filters",
        )
    noise = next((found for found in plan.filters if isinstance(found, GaussianNoise)), None)
    if noise is not None:
        raise InvalidInputError(
            f"--dp plans its own noise, and --filter gaussian_noise:sigma={noise.sigma:g} adds "
            "some that it does not count; leave the filter out.",
            field="filters",
        )


class TableWork:
    """What one site does with its rows.

    Args:
        data: the site's rows; they stay in this object.
        index: the site's place in the plan, part of its random seeds.
        plan: of the run.
        bounds: for a private statistics round; they stay in this kernel.
        should_stop: asked before each optimizer step.
    """

    def __init__(
        self,
        data: SiteData,
        index: int,
        prepared: Prepared,
        plan: CreateRun,
        *,
        bounds: Bounds | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self._data = data
        self._index = index
        self._signature = prepared.signature
        self._plan = plan
        self._architecture: Architecture = network_of(plan)
        self._bounds = bounds
        self._should_stop = should_stop
        self._encoded: np.ndarray | None = None

    def perform(
        self, assignment: Assignment, model: bytes | None, own: Callable[[str], bytes | None]
    ) -> Made:
        """Make the round's update; ``own`` reads a file that the site keeps between rounds.

        Raises:
            Stopped: the stop was asked for; nothing is kept.
            InvalidInputError: training diverged, or the rows cannot be used.
        """
        if assignment.kind == "statistics" or model is None:
            return self._file(self._statistics(), {})
        base, server = model_and_control(model)
        x = self._rows(assignment.statistics)
        if isinstance(self._plan.strategy, Scaffold):
            return self._scaffold(assignment, base, server or scaffold.no_control(base), x, own)
        pull = self._plan.strategy.mu if isinstance(self._plan.strategy, FedProx) else 0.0
        trained, metrics = self._train(assignment, base, x, GradientTerms(pull=pull))
        return self._filtered(assignment, weights.delta(base, trained), metrics, {}, own)

    def _statistics(self) -> State:
        if not isinstance(self._plan.privacy, RecordPlan):
            return local_moments(self._data.frame, self._signature)
        bounds, noise = statistics_terms(self._plan, self._bounds)
        return private_moments(
            self._data.frame,
            self._signature,
            bounds,
            noise,
        )

    def _rows(self, statistics: Statistics | None) -> np.ndarray:
        # The aggregates do not change within a run, so the encoded rows are kept.
        if self._encoded is None:
            if statistics is None:
                raise RuntimeError("a training round opened before the statistics were aggregated")
            encoder = TableEncoder(self._signature, statistics)
            self._encoded = encoder.encode_frame(self._data.frame)
        return self._encoded

    def _train(
        self, assignment: Assignment, base: State, x: np.ndarray, terms: GradientTerms
    ) -> tuple[State, dict[str, float]]:
        if isinstance(self._plan.privacy, RecordPlan):
            return train_privately(
                self._architecture,
                base,
                x,
                self._data.codes,
                assignment.local,
                site_plan(self._plan.privacy, len(x)),
                best_device(),
                self._should_stop,
                terms=terms,
            )
        return train(
            self._architecture,
            base,
            x,
            self._data.codes,
            assignment.local,
            round_seed(assignment.seed, self._index, assignment.number),
            best_device(),
            self._should_stop,
            terms=terms,
        )

    def _scaffold(
        self,
        assignment: Assignment,
        base: State,
        server: State,
        x: np.ndarray,
        own: Callable[[str], bytes | None],
    ) -> Made:
        name = f"{assignment.run_id}.control"
        kept = own(name)
        former = scaffold.no_control(base) if kept is None else weights.decode(kept)[0]
        terms = GradientTerms(correction=scaffold.correction(server, former))
        trained, metrics = self._train(assignment, base, x, terms)
        steps = local_steps(self._plan.privacy, len(x), assignment.local)
        path = steps * assignment.local.learning_rate
        new = scaffold.new_control(server, former, base, trained, path)
        update = scaffold.upload(weights.delta(base, trained), former, new)
        return self._filtered(assignment, update, metrics, {name: weights.encode(new)}, own)

    def _filtered(
        self,
        assignment: Assignment,
        update: State,
        metrics: dict[str, float],
        state: dict[str, bytes],
        own: Callable[[str], bytes | None],
    ) -> Made:
        filters: list[Filter] = [*self._plan.filters]
        if isinstance(self._plan.privacy, ClientPlan):
            # The platform refuses what is longer: the noise is measured by this norm.
            filters.append(GradientClip(max_norm=self._plan.privacy.clip))
        if not filters:
            return self._file(update, metrics, state)
        name = f"{assignment.run_id}.residual"
        kept = own(name)
        residual = None if kept is None else weights.decode(kept)[0]
        rows = len(self._data.codes)
        body, left = leave(update, rows, metrics, filters, residual, lambda _: None)
        after: dict[str, bytes | None] = dict(state)
        if left is not None:
            after[name] = weights.encode(left)
        return Made(body, after)

    def _file(
        self, update: State, metrics: dict[str, float], state: dict[str, bytes] | None = None
    ) -> Made:
        texts = {"sample_count": str(len(self._data.codes)), "metrics": json.dumps(metrics)}
        return Made(weights.encode(update, texts), state or {})
