"""What a round asks of a site, from its assignment and from the plan that this names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from truststram_lab.schemas.federation import Assignment, LocalTraining, RoundKind, RoundPlan
from truststram_lab.schemas.filters import Filter
from truststram_lab.schemas.participation import ConfigValue
from truststram_lab.schemas.privacy import PrivacyPlan
from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.strategies import AnyStrategy
from truststram_lab.schemas.tables import Signature, Statistics

__all__ = ["STATISTICS_NOISE", "Terms", "plan_in", "terms_of"]

#: In a plan's ``config``: the noise multiplier of the sites' moments, where they have noise.
STATISTICS_NOISE = "statistics_noise"


@dataclass(frozen=True)
class Terms:
    """One round's terms.

    Args:
        kind: ``statistics``, ``training``, ``evaluation`` or ``initial`` (send the parameters
            to begin with).
        config: for the site's own training function; ``epochs``, ``batch_size``,
            ``learning_rate``, ``round`` and ``proximal_mu`` are always there.
        signature, architecture: None where the run is one of named arrays only.
    """

    round_id: str
    run_id: str
    run: str
    kind: RoundKind
    number: int
    rounds: int
    seed: int
    min_site_rows: int
    local: LocalTraining
    config: Mapping[str, ConfigValue]
    strategy: AnyStrategy
    filters: tuple[Filter, ...]
    privacy: PrivacyPlan | None
    signature: Signature | None
    architecture: Architecture | None
    statistics: Statistics | None
    model: str | None

    @property
    def proximal_mu(self) -> float:
        """The strength of the pull to the global model; 0 without one."""
        return float(getattr(self.strategy, "mu", 0.0))

    @property
    def statistics_noise(self) -> float | None:
        """The noise multiplier of means and variances; None for none, or for bounds alone."""
        found = self.config.get(STATISTICS_NOISE)
        return None if found is None else float(found)


def plan_in(assignment: Assignment) -> RoundPlan:
    """The plan that a whole assignment brings along, for those that only name it."""
    parts = {
        name: value
        for name in RoundPlan.model_fields
        if (value := getattr(assignment, name)) is not None
    }
    # Not validated: every part of it was.
    return RoundPlan.model_construct(**parts)


def terms_of(assignment: Assignment, plan: RoundPlan | None = None) -> Terms:
    """The terms of an assignment; ``plan`` has what the assignment names by its digest only."""
    rest = plan or RoundPlan()
    strategy = assignment.strategy or rest.strategy
    local = assignment.local
    given = rest.config if assignment.config is None else assignment.config
    config: dict[str, ConfigValue] = {
        "epochs": local.epochs,
        "batch_size": local.batch_size,
        "learning_rate": local.learning_rate,
        "round": assignment.number,
        "proximal_mu": float(getattr(strategy, "mu", 0.0)),
        **given,
    }
    return Terms(
        round_id=assignment.round_id,
        run_id=assignment.run_id,
        run=assignment.run,
        kind=assignment.kind,
        number=assignment.number,
        rounds=assignment.rounds,
        seed=assignment.seed,
        min_site_rows=assignment.min_site_rows,
        local=local,
        config=config,
        strategy=strategy,
        filters=tuple(rest.filters if assignment.filters is None else assignment.filters),
        privacy=assignment.privacy or rest.privacy,
        signature=assignment.signature or rest.signature,
        architecture=assignment.architecture or rest.architecture,
        statistics=assignment.statistics or rest.statistics,
        model=assignment.model or rest.model,
    )
