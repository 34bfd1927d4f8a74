"""From a budget to a plan: the noise that meets it, and what that noise does to training."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...exceptions import InvalidInputError
from ...schemas.privacy import (
    ClientPlan,
    ExpectedNoise,
    GaussianUse,
    PlannedPrivacy,
    PrivacyPlan,
    RecordPlan,
    Unit,
)
from .accountant import account, require_delta
from .dpsgd import rates
from .statements import statement

__all__ = ["expected_noise", "least_noise", "plan"]

#: The search ends this close to the least noise, relative to it; epsilon is about as close.
_PRECISION = 1e-7
_MOST_NOISE = 1e9


def least_noise(epsilon: float, delta: float, use: Callable[[float], list[GaussianUse]]) -> float:
    """The least noise multiplier whose releases stay within ``epsilon``.

    Accounted as a running round is ("live"), so that the ledger admits what was planned. The
    epsilon of the result lies below ``epsilon``, by less than a thousandth of it.

    Args:
        epsilon: positive.
        delta: above 0, below 1.
        use: noise multiplier -> all that the plan releases.

    Raises:
        InvalidInputError: a number is out of range, or no noise reaches so small an epsilon.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InvalidInputError(
            f"Epsilon {epsilon:g} is no budget; use a positive number, for example 3.",
            field="epsilon",
        )
    require_delta(delta)

    def fits(noise: float) -> bool:
        return account(use(noise), delta).epsilon <= epsilon

    high = 1.0
    while not fits(high):
        high *= 2
        if high > _MOST_NOISE:
            raise InvalidInputError(
                f"No noise gives epsilon {epsilon:g} at delta {delta:g}; use a larger epsilon.",
                field="epsilon",
            )
    low = high / 2
    while fits(low):
        low, high = low / 2, low
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def plan(
    epsilon: float,
    delta: float,
    rounds: int,
    sites: int,
    *,
    rows: int | None = None,
    batch_size: int = 16,
    epochs: float = 2,
    unit: Unit | None = None,
    cohort_rate: float = 1.0,
    clip: float = 1.0,
    parameters: int = 1000,
) -> PlannedPrivacy:
    """A plan that spends at most ``epsilon`` over all rounds, with the noise to expect.

    Args:
        epsilon, delta: the budget of each unit; delta below 1 / units.
        rounds: of training.
        sites: that take part.
        rows: of the *smallest* site; sites with more spend less. Needed for unit "record".
        batch_size, epochs: of record-level DP-SGD at a site, a round.
        unit: who is hidden; "record" where ``rows`` are given, else "client".
        cohort_rate: chance of each site to be drawn into a round (unit "client"); below 1 only
            if the platform draws in secret.
        clip: largest norm of a row's gradient, or of a site's update.
        parameters: of the model.

    Raises:
        InvalidInputError: a number is out of range, or delta gives somebody away.
    """
    for name, value in (("rounds", rounds), ("sites", sites), ("parameters", parameters)):
        if value < 1:
            raise InvalidInputError(f"{name} is {value}; use 1 or more.", field=name)
    chosen: Unit = unit or ("client" if rows is None else "record")
    if chosen == "record":
        found = _record_plan(epsilon, delta, rounds, rows, batch_size, epochs, clip)
        units = rows or 1
    else:
        found = _client_plan(epsilon, delta, rounds, sites, cohort_rate, clip)
        units = sites
    if units > 1 and delta * units >= 1:
        raise InvalidInputError(
            f"Delta {delta:g} allows one of {units} to be shown in full; use a delta well below "
            f"{1 / units:.2g}, for example {0.01 / units:.1g}.",
            field="delta",
        )
    return PlannedPrivacy(
        plan=found,
        statement=statement(found, tight=False),
        noise=expected_noise(found, sites=sites, parameters=parameters),
    )


def _record_plan(
    epsilon: float,
    delta: float,
    rounds: int,
    rows: int | None,
    batch_size: int,
    epochs: float,
    clip: float,
) -> PrivacyPlan:
    if rows is None:
        raise InvalidInputError(
            "A record-level plan needs the rows of the smallest site; give rows=.", field="rows"
        )
    rate, steps = rates(rows, batch_size, epochs)
    noise = least_noise(
        epsilon,
        delta,
        lambda noise: [GaussianUse(noise_multiplier=noise, sample_rate=rate, steps=steps * rounds)],
    )
    return RecordPlan(
        clip=clip,
        noise_multiplier=noise,
        sample_rate=rate,
        batch_size=batch_size,
        steps_per_round=steps,
        rounds=rounds,
        delta=delta,
    )


def _client_plan(
    epsilon: float, delta: float, rounds: int, sites: int, cohort_rate: float, clip: float
) -> PrivacyPlan:
    if not 0 < cohort_rate <= 1:
        raise InvalidInputError(
            f"{cohort_rate:g} is no chance to be drawn; use a number above 0 and at most 1.",
            field="cohort_rate",
        )
    noise = least_noise(
        epsilon,
        delta,
        lambda noise: [GaussianUse(noise_multiplier=noise, sample_rate=cohort_rate, steps=rounds)],
    )
    return ClientPlan(
        clip=clip,
        noise_multiplier=noise,
        cohort_rate=cohort_rate,
        sites=sites,
        rounds=rounds,
        delta=delta,
    )


def expected_noise(plan: PrivacyPlan, *, sites: int, parameters: int) -> ExpectedNoise:
    """How large the noise in the aggregated model is beside the largest possible signal.

    The norm of normal noise on P parameters is close to sigma * sqrt(P). The signal is at most
    the clipping norm, if all rows (sites) pull in one direction at every step; real ones do not,
    so the ratio is a lower bound. It says nothing of the loss's curvature, which decides how much
    noise a model bears: where tables are at hand, ``simulation.expected_accuracy`` tells more.

    Args:
        plan: record, client or local.
        sites: whose mean is taken; independent noise at each shrinks with their square root.
        parameters: of the model.

    Bassily, Smith and Thakurta 2014, "Private Empirical Risk Minimization", section 5: the error
    grows with sqrt(P). https://arxiv.org/abs/1405.7085
    """
    spread = math.sqrt(parameters)
    if isinstance(plan, RecordPlan):
        noise = plan.noise_multiplier * plan.clip * spread
        noise /= plan.batch_size * math.sqrt(sites)
        steps = plan.rounds * plan.steps_per_round
    elif isinstance(plan, ClientPlan):
        noise = plan.noise_multiplier * plan.clip * spread / plan.denominator
        steps = plan.rounds
    else:
        noise = plan.sigma * spread / math.sqrt(sites)
        steps = plan.rounds
    ratio = noise / plan.clip / math.sqrt(steps)
    return ExpectedNoise(
        step_noise=noise,
        step_signal=plan.clip,
        noise_to_signal=ratio,
        text=(
            f"Over {steps} {'step' if steps == 1 else 'steps'} the noise is at least {ratio:.2g} "
            f"times the largest signal that clipping leaves ({parameters} parameters): "
            f"{_verdict(ratio)}."
        ),
    )


def _verdict(ratio: float) -> str:
    if ratio >= 1:
        return "training will hardly learn; more sites, more rows or a smaller model help most"
    if ratio >= 0.1:
        return "expect a clear loss of accuracy"
    return "most of the signal can come through"
