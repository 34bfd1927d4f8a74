"""Record-level privacy of a simulated run: the plan, and what each site does with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.dpsgd import rates
from truststram_lab.learning.privacy.moments import noised_moments, record_sensitivity
from truststram_lab.learning.privacy.planner import least_noise
from truststram_lab.learning.statistics import empty_moments
from truststram_lab.learning.weights import State
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.privacy import GaussianUse, RecordPlan
from truststram_lab.schemas.tables import Signature

from .bounds import Bounds
from .preparation import SiteData

__all__ = ["PrivacyWish", "RecordTerms", "private_moments", "record_terms", "site_plan"]

#: Noised means are worth their epsilon where the noise on the federation's mean is at most this
#: share of half a column's range, and they cost at most that share of the budget. Otherwise the
#: inputs are scaled by the bounds alone, which costs nothing.
_MEAN_NOISE = 0.05
_STATISTICS_SHARE = 0.1


@dataclass(frozen=True)
class PrivacyWish:
    """What the owner asks for.

    Args:
        epsilon: that the run may spend, statistics included.
        delta: None for one tenth of 1 / (rows of the smallest site).
        clip: the largest L2 norm of one row's gradient (record), or of one update (client).
    """

    epsilon: float
    delta: float | None = None
    clip: float = 1.0


@dataclass(frozen=True)
class RecordTerms:
    """A record-level plan, and the noise multiplier of its statistics (None: no rows' statistics).

    Every site draws each row with the same chance and takes the same number of steps, so all
    sites spend the same epsilon; larger sites have less noise.
    """

    plan: RecordPlan
    statistics_noise: float | None

    @property
    def statistics_use(self) -> list[GaussianUse]:
        """What the statistics round releases."""
        if self.statistics_noise is None:
            return []
        return [GaussianUse(noise_multiplier=self.statistics_noise)]


def record_terms(
    wish: PrivacyWish,
    sites: Sequence[SiteData],
    signature: Signature,
    rounds: int,
    local: LocalTraining,
) -> RecordTerms:
    """The least noise with which all rounds and the statistics stay within the wish.

    Raises:
        InvalidInputError: epsilon, delta or clip are out of range, or delta gives a row away.
    """
    smallest = min(len(site.codes) for site in sites)
    total = sum(len(site.codes) for site in sites)
    delta = 1 / (10 * smallest) if wish.delta is None else wish.delta
    _check(wish, delta, smallest)
    rate, steps = rates(smallest, min(local.batch_size, smallest), local.epochs)
    noise = _MEAN_NOISE * total / (record_sensitivity(signature) * math.sqrt(len(sites)))
    statistics = [GaussianUse(noise_multiplier=noise)]
    if account(statistics, delta).epsilon > _STATISTICS_SHARE * wish.epsilon:
        statistics = []

    def use(multiplier: float) -> list[GaussianUse]:
        training = GaussianUse(noise_multiplier=multiplier, sample_rate=rate, steps=steps * rounds)
        return [*statistics, training]

    plan = RecordPlan(
        clip=wish.clip,
        noise_multiplier=least_noise(wish.epsilon, delta, use),
        sample_rate=rate,
        batch_size=rate * smallest,
        steps_per_round=steps,
        rounds=rounds,
        delta=delta,
    )
    return RecordTerms(plan, noise if statistics else None)


def _check(wish: PrivacyWish, delta: float, smallest: int) -> None:
    if not (math.isfinite(wish.epsilon) and 0 < wish.epsilon <= 1e6):
        raise InvalidInputError(
            f"--dp {wish.epsilon:g} is no epsilon; give a number above 0, for example --dp 3 "
            "(up to about 10 it protects single rows).",
            field="dp",
        )
    if not (math.isfinite(wish.clip) and wish.clip > 0):
        raise InvalidInputError(
            f"--clip {wish.clip:g} is no norm; give a number above 0, for example --clip 1.",
            field="clip",
        )
    if not 0 < delta < 1 / smallest:
        raise InvalidInputError(
            f"--delta {delta:g} allows one of {smallest} rows to be shown in full; give one above "
            f"0 and well below {1 / smallest:.2g}, for example {0.1 / smallest:.2g}.",
            field="delta",
        )


def site_plan(plan: RecordPlan, rows: int) -> RecordPlan:
    """The plan as a site of ``rows`` rows follows it: its sums are divided by its own sample.

    Chance and steps are the plan's, so the site spends what the plan says.
    """
    return plan.model_copy(update={"batch_size": plan.sample_rate * rows})


def private_moments(
    site: SiteData, signature: Signature, bounds: Bounds, noise: float | None
) -> State:
    """A site's moments: noised, or without a ``noise`` multiplier, made of the bounds alone.

    The row count is the site's own in both cases; it is outside epsilon, as everywhere.
    """
    rows = len(site.codes)
    if noise is None:
        return _moments_of_bounds(rows, signature, bounds)
    moments = noised_moments(site.frame, signature, bounds, noise)
    return _with_rows(moments, rows, signature)


def _moments_of_bounds(rows: int, signature: Signature, bounds: Bounds) -> State:
    """The moments of ``rows`` values spread evenly over the bounds, and over the categories."""
    moments = empty_moments(signature)
    moments["rows"][0] = rows
    moments["count"][:] = rows
    measured = [column for column in signature.columns if column.kind != "categorical"]
    for place, column in enumerate(measured):
        low, high = bounds.get(column.name, (0.0, 1.0))
        moments["mean"][place] = (low + high) / 2
        moments["m2"][place] = rows * (high - low) ** 2 / 12
    at = 0
    for column in signature.columns:
        if column.kind == "categorical":
            width = len(column.categories)
            shares = np.full(width, rows // max(width, 1))
            shares[: rows - int(shares.sum())] += 1
            moments["categories"][at : at + width] = shares
            at += width
    return moments


def _with_rows(moments: State, rows: int, signature: Signature) -> State:
    """Noised moments that add up to ``rows``: what comes after the noise spends nothing."""
    found = {name: array.copy() for name, array in moments.items()}
    found["rows"][0] = rows
    measured = counted = 0
    for place, column in enumerate(signature.columns):
        if column.kind == "categorical":
            width = len(column.categories)
            part = found["categories"][counted : counted + width]
            if part.sum() > rows:
                part[:] = np.floor(part * (rows / part.sum())).astype(np.int64)
            found["missing"][place] = rows - int(part.sum())
            counted += width
            continue
        count = int(found["count"][measured])
        kept = min(count, rows)
        if count:
            found["m2"][measured] *= kept / count
        found["count"][measured] = kept
        found["missing"][place] = rows - kept
        measured += 1
    return found
