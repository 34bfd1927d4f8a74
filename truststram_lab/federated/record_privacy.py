"""Record-level privacy of a run: the plan, and what each site does with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.dpsgd import rates
from truststram_lab.learning.privacy.moments import noised_moments, record_sensitivity
from truststram_lab.learning.privacy.planner import least_noise
from truststram_lab.learning.privacy.planner import plan as planned
from truststram_lab.learning.statistics import empty_moments
from truststram_lab.learning.training import steps_of
from truststram_lab.learning.weights import State
from truststram_lab.schemas.federation import CreateRun, LocalTraining
from truststram_lab.schemas.participation import ConfigValue
from truststram_lab.schemas.privacy import GaussianUse, PrivacyPlan, RecordPlan, Unit
from truststram_lab.schemas.tables import Signature

from .bounds import Bounds
from .participation.terms import STATISTICS_NOISE
from .preparation import MIN_SITE_ROWS

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EPSILON",
    "PRIVATE_LEARNING_RATE",
    "DpWish",
    "PrivacyWish",
    "RecordTerms",
    "clients_plan",
    "federation_terms",
    "local_steps",
    "privacy_fields",
    "private_moments",
    "record_terms",
    "site_plan",
    "statistics_terms",
]

#: Noised means are worth their epsilon where the noise on the federation's mean is at most this
#: share of half a column's range, and they cost at most that share of the budget. Otherwise the
#: inputs are scaled by the bounds alone, which costs nothing.
_MEAN_NOISE = 0.05
_STATISTICS_SHARE = 0.1
#: Delta of a run of real sites that names none; a site with too many rows for it declines.
_FEDERATION_DELTA = 1e-5
#: A row's chance to be in a step, where none is named.
_SAMPLE_RATE = 0.1
#: In a plan's ``config``: what the run may spend in all.
EPSILON = "dp_epsilon"
#: The learning rate of a private run that names none: a clipped gradient is short. Chosen on
#: the demo data at epsilon 3.
PRIVATE_LEARNING_RATE = 0.5


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
    sizes: Sequence[int],
    signature: Signature | None,
    rounds: int,
    local: LocalTraining,
    *,
    hidden_among: int | None = None,
) -> RecordTerms:
    """The least noise with which all rounds and the statistics stay within the wish.

    Args:
        sizes: rows of each site.
        signature: of the sites' tables; None where no means and variances are taken.
        hidden_among: the rows among which delta must not give one away; by default those of
            the smallest site.

    Raises:
        InvalidInputError: epsilon, delta or clip are out of range, or delta gives a row away.
    """
    smallest, total = min(sizes), sum(sizes)
    hidden = hidden_among or smallest
    delta = 1 / (10 * hidden) if wish.delta is None else wish.delta
    _check(wish, delta, hidden)
    rate, steps = rates(smallest, min(local.batch_size, smallest), local.epochs)
    noise, statistics = 0.0, list[GaussianUse]()
    if signature is not None:
        noise = _MEAN_NOISE * total / (record_sensitivity(signature) * math.sqrt(len(sizes)))
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


def clients_plan(
    wish: PrivacyWish,
    unit: Unit,
    sizes: Sequence[int],
    rounds: int,
    local: LocalTraining,
    cohort_rate: float,
) -> PrivacyPlan:
    """The plan of virtual clients that exchange no means and variances.

    Args:
        sizes: rows of each client.
        cohort_rate: chance of a client to be in a round, for unit "client".

    Raises:
        InvalidInputError: a number is out of range, or delta gives somebody away.
    """
    if unit == "record":
        return record_terms(wish, sizes, None, rounds, local, hidden_among=sum(sizes)).plan
    delta = _FEDERATION_DELTA if wish.delta is None else wish.delta
    return planned(
        wish.epsilon, delta, rounds, len(sizes), unit="client", cohort_rate=cohort_rate,
        clip=wish.clip,
    ).plan  # fmt: skip


def federation_terms(
    wish: PrivacyWish, rounds: int, local: LocalTraining, sample_rate: float, *, statistics: bool
) -> RecordTerms:
    """The plan of a run of real sites, whose rows its owner does not know.

    The chance of a row and the number of steps are the plan's, so that every site spends the same
    epsilon whatever its size; each site divides by its own expected sample (``site_plan``). The
    plan's ``batch_size`` is that of the smallest site that may take part.

    Args:
        statistics: spend a tenth of epsilon on noised means and variances; else inputs are
            scaled by the sites' bounds, which spends nothing.

    Raises:
        InvalidInputError: epsilon, delta, clip or the sample rate are out of range.
    """
    delta = _FEDERATION_DELTA if wish.delta is None else wish.delta
    _check(wish, delta, MIN_SITE_ROWS)
    if not 0 < sample_rate <= 1:
        raise InvalidInputError(
            f"--sample-rate {sample_rate:g} is no chance; give a number above 0 and at most 1, "
            "for example --sample-rate 0.1.",
            field="sample_rate",
        )
    steps = math.ceil(local.epochs / sample_rate - 1e-9)
    released: list[GaussianUse] = []
    if statistics:
        noise = least_noise(
            _STATISTICS_SHARE * wish.epsilon,
            delta,
            lambda multiplier: [GaussianUse(noise_multiplier=multiplier)],
        )
        released = [GaussianUse(noise_multiplier=noise)]

    def use(multiplier: float) -> list[GaussianUse]:
        training = GaussianUse(
            noise_multiplier=multiplier, sample_rate=sample_rate, steps=steps * rounds
        )
        return [*released, training]

    plan = RecordPlan(
        clip=wish.clip,
        noise_multiplier=least_noise(wish.epsilon, delta, use),
        sample_rate=sample_rate,
        batch_size=sample_rate * MIN_SITE_ROWS,
        steps_per_round=steps,
        rounds=rounds,
        delta=delta,
    )
    return RecordTerms(plan, released[0].noise_multiplier if released else None)


@dataclass(frozen=True)
class DpWish:
    """What the owner of a federation asks for, as ``open`` takes it.

    Args:
        sample_rate: of a record-level run; None for a tenth.
        statistics: "noised" or "bounds".
        batches: a batch size was given, which a record-level run has none of.
    """

    wish: PrivacyWish
    unit: Unit
    sample_rate: float | None = None
    statistics: str = "noised"
    batches: bool = False


def privacy_fields(asked: DpWish, rounds: int, sites: int, local: LocalTraining) -> dict[str, Any]:
    """``privacy``, ``config`` and ``local`` of a plan of real sites.

    Raises:
        InvalidInputError: a number is out of range, or belongs to the other unit.
    """
    if asked.statistics not in ("noised", "bounds"):
        raise InvalidInputError(
            f"{asked.statistics!r} is no way to the means and variances; it is noised or bounds.",
            field="dp_statistics",
            choices=["noised", "bounds"],
        )
    wish = asked.wish
    told: dict[str, ConfigValue] = {EPSILON: float(wish.epsilon)}
    if asked.unit == "client":
        if asked.sample_rate is not None:
            raise InvalidInputError(
                "--sample-rate is of rows, and --dp-unit client hides sites; leave it out.",
                field="sample_rate",
            )
        delta = _FEDERATION_DELTA if wish.delta is None else wish.delta
        found = planned(wish.epsilon, delta, rounds, sites, unit="client", clip=wish.clip)
        return {"privacy": found.plan, "config": told, "local": local}
    if asked.batches:
        raise InvalidInputError(
            "Under --dp a step takes each row with a chance of its own, so it has no batch size; "
            "give --sample-rate 0.1 for a tenth of each site's rows on average.",
            field="batch_size",
        )
    rate = _SAMPLE_RATE if asked.sample_rate is None else asked.sample_rate
    terms = federation_terms(wish, rounds, local, rate, statistics=asked.statistics == "noised")
    if terms.statistics_noise is not None:
        told[STATISTICS_NOISE] = terms.statistics_noise
    if "learning_rate" not in local.model_fields_set:
        local = local.model_copy(update={"learning_rate": PRIVATE_LEARNING_RATE})
    return {"privacy": terms.plan, "config": told, "local": local}


def local_steps(privacy: PrivacyPlan | None, rows: int, local: LocalTraining) -> int:
    """Optimizer steps of a round at a site of ``rows`` rows: DP-SGD takes as many as its plan."""
    if isinstance(privacy, RecordPlan):
        return privacy.steps_per_round
    return steps_of(rows, local)


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


def statistics_terms(plan: CreateRun, bounds: Bounds | None) -> tuple[Bounds, float | None]:
    """Of what a private run makes its means and variances: bounds, and the noise's multiplier.

    Without a multiplier the bounds alone scale the inputs.

    Raises:
        InvalidInputError: only the kernel that began the run knew the bounds.
    """
    if bounds is None:
        raise InvalidInputError(
            f"The run of {plan.model} makes its means and variances of bounds that the kernel "
            "which began it knew; start a new run.",
            field="bounds",
        )
    noise = plan.config.get(STATISTICS_NOISE)
    return bounds, None if noise is None else float(noise)


def private_moments(
    frame: pd.DataFrame, signature: Signature, bounds: Bounds, noise: float | None
) -> State:
    """A site's moments: noised, or without a ``noise`` multiplier, made of the bounds alone.

    The row count is the site's own in both cases; it is outside epsilon, as everywhere.
    """
    rows = len(frame)
    if noise is None:
        return _moments_of_bounds(rows, signature, bounds)
    moments = noised_moments(frame, signature, bounds, noise)
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
