"""What a site insists on, whatever the federation asks: its own floor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.schemas.filters import Filter, GaussianNoise, GradientClip, parse_filters
from truststram_lab.schemas.privacy import GaussianUse, LocalPlan, RecordPlan
from truststram_lab.schemas.strategies import STRATEGY_NAMES, as_strategy

from .terms import Terms

__all__ = ["SitePolicy"]


@dataclass(frozen=True)
class SitePolicy:
    """A round that is below this floor is declined, and the federation is told why.

    Args:
        max_clip: updates must be clipped to at most this norm before they leave; in a run that
            protects rows, each row's gradient.
        min_noise: and covered by noise of at least this standard deviation, in parameter units;
            in a run that protects rows, each step's sum of gradients.
        max_epsilon: the run's own plan, over all its rounds, may spend at most this.
        models: names of the models that may be trained; None allows all.
        strategies: of the strategies; None allows all.
        allow_statistics: whether counts, means and variances of the columns may leave.
        own_filters: applied to every update here before the federation's filters.
        max_rounds: the most rounds of one run.
    """

    max_clip: float | None = None
    min_noise: float | None = None
    max_epsilon: float | None = None
    models: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    allow_statistics: bool = True
    own_filters: tuple[Filter, ...] = ()
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_clip", "min_noise", "max_epsilon", "max_rounds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInputError(
                    f"{name} is {value!r}, but a floor is a positive number; leave it out for "
                    "none.",
                    field=name,
                )
        if self.strategies is not None:
            named = tuple(as_strategy(name).name for name in self.strategies)
            object.__setattr__(self, "strategies", named)
        object.__setattr__(self, "own_filters", parse_filters(self.own_filters))

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> SitePolicy:
        """A policy from plain settings, such as a file's.

        Raises:
            InvalidInputError: an unknown setting (a typo must not lower the floor).
        """
        known = list(cls.__dataclass_fields__)
        for name in settings:
            if name not in known:
                close = nearest(str(name), known, most=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}."
                raise InvalidInputError(
                    f"A site's policy has no {name!r}; {hint}", field=str(name), choices=close
                )
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
        }
        return cls(**plain)

    def objections(self, terms: Terms) -> list[str]:
        """What speaks against the round, one sentence each; empty if nothing does."""
        return [sentence for sentence in self._objections(terms) if sentence]

    def _objections(self, terms: Terms) -> Iterable[str | None]:
        yield self._on_names(terms)
        yield self._on_strategy(terms)
        if self.max_rounds is not None and terms.rounds > self.max_rounds:
            yield (
                f"This site takes part in at most {self.max_rounds} rounds of a run, and this one "
                f"has {terms.rounds}."
            )
        if terms.kind == "statistics" and not self.allow_statistics:
            yield "This site gives no counts, means or variances of its columns."
        if terms.kind == "training" or isinstance(terms.privacy, RecordPlan):
            yield self._on_clip(terms)
            yield self._on_noise(terms)
            yield self._on_epsilon(terms)

    def _on_names(self, terms: Terms) -> str | None:
        if self.models is None or terms.model in self.models:
            return None
        named = "a model without a name" if terms.model is None else f"model {terms.model!r}"
        return f"This site trains {', '.join(self.models)} only, and the run is of {named}."

    def _on_strategy(self, terms: Terms) -> str | None:
        if self.strategies is None or terms.strategy.name in self.strategies:
            return None
        allowed = ", ".join(name for name in STRATEGY_NAMES if name in self.strategies)
        return f"This site allows {allowed} only, and the run uses {terms.strategy.name}."

    def _on_clip(self, terms: Terms) -> str | None:
        if self.max_clip is None:
            return None
        norms = [
            found.max_norm
            for found in (*self.own_filters, *terms.filters)
            if isinstance(found, GradientClip) and not found.per_tensor
        ]
        if isinstance(terms.privacy, LocalPlan):
            norms.append(terms.privacy.clip)
        if isinstance(terms.privacy, RecordPlan):
            norms = [terms.privacy.clip]  # a clip of updates bounds no single row
        if norms and min(norms) <= self.max_clip:
            return None
        found = f"the norm is {min(norms):g}" if norms else "nothing clips"
        return (
            f"This site clips updates to {self.max_clip:g} or less, and of the run's plan {found}."
        )

    def _on_noise(self, terms: Terms) -> str | None:
        if self.min_noise is None:
            return None
        # Independent noises add up in their squares.
        squares = sum(
            found.sigma**2
            for found in (*self.own_filters, *terms.filters)
            if isinstance(found, GaussianNoise)
        )
        if isinstance(terms.privacy, LocalPlan):
            squares += terms.privacy.sigma**2
        if isinstance(terms.privacy, RecordPlan):
            squares = (terms.privacy.noise_multiplier * terms.privacy.clip) ** 2
        sigma = float(squares) ** 0.5
        if sigma >= self.min_noise:
            return None
        return (
            f"This site adds noise of at least {self.min_noise:g} to an update, and the run's plan "
            f"adds {sigma:g}."
        )

    def _on_epsilon(self, terms: Terms) -> str | None:
        if self.max_epsilon is None:
            return None
        if not isinstance(terms.privacy, RecordPlan | LocalPlan):
            return (
                f"This site spends an epsilon of at most {self.max_epsilon:g} in a run, and the "
                "run's plan has no privacy that the site itself enforces."
            )
        from truststram_lab.learning.privacy import accountant

        plan = terms.privacy
        uses = [plan.use(max(plan.rounds, terms.rounds))]
        if isinstance(plan, RecordPlan) and terms.statistics_noise is not None:
            uses.append(GaussianUse(noise_multiplier=terms.statistics_noise))
        spent = accountant.account(uses, plan.delta).epsilon
        if spent <= self.max_epsilon:
            return None
        return (
            f"This site spends an epsilon of at most {self.max_epsilon:g} in a run, and this one "
            f"would spend {spent:.3g}."
        )
