"""Clip, add noise, divide: the Gaussian mechanisms on updates.

Clipping is global over all arrays and the last step before the noise; whatever follows the
noise (rounding, top-k, compression) spends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from ...exceptions import InvalidInputError, UpdateRejectedError
from ...schemas.privacy import ClientPlan, LocalPlan
from ..weights import State, check_update
from .noise import NoiseSource, SecureRandom, add_noise

__all__ = ["clip_to", "cohort", "global_norm", "noised_mean", "noised_sum", "noised_update"]


def global_norm(update: Mapping[str, np.ndarray]) -> float:
    """The L2 norm over all arrays together, in float64; exact where squares would overflow.

    Raises:
        UpdateRejectedError: a value is not finite.
        InvalidInputError: an array is not of floats; a count in it would escape the noise.
    """
    largest = 0.0
    for name, array in update.items():
        if array.dtype.kind != "f":
            raise InvalidInputError(
                f"Array {name!r} has type {array.dtype}, and noise hides floats only; leave it at "
                "the site.",
                field=name,
            )
        peak = float(np.abs(array).max(initial=0.0))
        if not math.isfinite(peak):
            raise UpdateRejectedError(
                f"Array {name!r} has values that are not finite; train again with a lower "
                "learning rate.",
                field=name,
            )
        largest = max(largest, peak)
    if largest == 0.0:
        return 0.0
    # Divided by a power of two, so that nothing is rounded.
    unit = 2.0 ** min(math.frexp(largest)[1], 1023)
    squares = (float(np.square(array.astype(np.float64) / unit).sum()) for array in update.values())
    return unit * math.sqrt(math.fsum(squares))


def clip_to(update: Mapping[str, np.ndarray], max_norm: float) -> State:
    """The update scaled to a global L2 norm of at most ``max_norm``, in float64.

    Args:
        update: name -> float array, any shapes; left alone.
        max_norm: positive, in parameter units.

    Raises:
        InvalidInputError, UpdateRejectedError: see ``global_norm``; ``max_norm`` is not positive.

    McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models",
    algorithm 1, FlatClip. https://arxiv.org/abs/1710.06963
    """
    if not (math.isfinite(max_norm) and max_norm > 0):
        raise InvalidInputError(
            f"{max_norm:g} is no norm to clip to; use a positive number, for example 1.",
            field="clip",
        )
    norm = global_norm(update)
    factor = 1.0 if norm <= max_norm else max_norm / norm
    return {name: array.astype(np.float64) * factor for name, array in update.items()}


def noised_sum(
    updates: Iterable[Mapping[str, np.ndarray]],
    like: Mapping[str, np.ndarray],
    *,
    clip: float,
    noise_multiplier: float,
    rng: NoiseSource | None = None,
) -> State:
    """The sum of clipped updates plus noise of standard deviation ``noise_multiplier * clip``.

    Updates are read once, one at a time and in order. Without any the noise is released all the
    same: that a round was empty is a secret too.

    Args:
        updates: of those who are in the cohort and came; each weighs the same.
        like: an update's names, shapes and types.
        clip: largest global L2 norm, in parameter units; the sensitivity under add-or-remove.
        noise_multiplier: not negative; 0 adds no noise and protects nothing.
        rng: noise source; by default a new key that is kept nowhere.

    Returns:
        float64 arrays; round them to the model's type afterwards.

    Raises:
        InvalidInputError, UpdateRejectedError: an update does not look like ``like``, or
            ``clip_to`` refuses it.

    McMahan et al. 2018, algorithm 1 (the estimator ``f_f`` before its division).
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier >= 0):
        raise InvalidInputError(
            f"{noise_multiplier:g} is no noise multiplier; use 0 or more, for example 1.",
            field="noise_multiplier",
        )
    sums = {name: np.zeros(array.shape) for name, array in like.items()}
    for update in updates:
        check_update(update, like)
        for name, array in clip_to(update, clip).items():
            sums[name] += array
    source = SecureRandom() if rng is None else rng
    return {
        name: add_noise(total, noise_multiplier * clip, rng=source) for name, total in sums.items()
    }


def noised_mean(
    updates: Iterable[Mapping[str, np.ndarray]],
    like: Mapping[str, np.ndarray],
    plan: ClientPlan,
    *,
    rng: NoiseSource | None = None,
) -> State:
    """One round of DP-FedAvg: the noised sum over the *expected* number of sites.

    The denominator is fixed at ``cohort_rate * sites``: a site that was drawn and stayed away
    counts as zero, and how many came is not in the result. Returned in the type of ``like``.

    McMahan et al. 2018, algorithm 1, with the fixed-denominator estimator of section 2.
    """
    total = noised_sum(
        updates, like, clip=plan.clip, noise_multiplier=plan.noise_multiplier, rng=rng
    )
    return {
        name: (array / plan.denominator).astype(like[name].dtype) for name, array in total.items()
    }


def noised_update(
    update: Mapping[str, np.ndarray], plan: LocalPlan, *, rng: NoiseSource | None = None
) -> State:
    """A site's own update, clipped and noised before it leaves, in the update's types.

    Dwork and Roth 2014, "The Algorithmic Foundations of Differential Privacy", section 12.1
    (the local model), with the Gaussian mechanism and sensitivity ``2 * clip``.
    """
    source = SecureRandom() if rng is None else rng
    return {
        name: add_noise(array, plan.sigma, rng=source).astype(update[name].dtype)
        for name, array in clip_to(update, plan.clip).items()
    }


def cohort(units: int, rate: float, *, rng: NoiseSource | None = None) -> np.ndarray:
    """A Poisson sample: the places, rising, of the units that take part; their number varies.

    Only such a sample amplifies, and only while it is secret: drawn once, from a fixed roster,
    never again until a quorum is met, and shown to nobody.

    Args:
        units: of the roster.
        rate: chance of each unit, by itself; 1 takes all.
        rng: by default a new key that is kept nowhere.

    Returns:
        int64 (k,), 0 <= k <= units.

    Mironov, Talwar and Zhang 2019, section 3 (the sampled Gaussian mechanism).
    https://arxiv.org/abs/1908.10530
    """
    if not 0 < rate <= 1:
        raise InvalidInputError(
            f"{rate:g} is no chance to take part; use a number above 0 and at most 1.",
            field="sample_rate",
        )
    source = SecureRandom() if rng is None else rng
    return np.flatnonzero(source.random(units) < rate)
