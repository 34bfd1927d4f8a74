"""The Gaussian mechanism with full participation: its epsilon is known exactly.

Everything depends on ``mu``, the sensitivity divided by the noise's standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from .special import log_normal_cdf, mills_ratio

__all__ = ["compose_mu", "gaussian_delta", "gaussian_epsilon", "gaussian_noise_multiplier"]


def compose_mu(mus: Iterable[float]) -> float:
    """The ``mu`` of several Gaussian mechanisms together: the root of the sum of squares.

    Dong, Roth and Su 2019, "Gaussian Differential Privacy", corollary 3.3.
    https://arxiv.org/abs/1905.02383
    """
    return math.hypot(*mus)


def gaussian_delta(epsilon: float, mu: float) -> float:
    """The least delta for ``epsilon``, exactly.

    Args:
        epsilon: not negative.
        mu: sensitivity over standard deviation; 0 is no release, infinity no noise.

    Balle and Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy:
    Analytical Calibration and Optimal Denoising", theorem 8. https://arxiv.org/abs/1805.06530
    """
    if mu == 0:
        return 0.0
    if mu * mu == math.inf:
        return 1.0
    upper, lower = mu / 2 - epsilon / mu, mu / 2 + epsilon / mu
    # exp(epsilon) * P(Z > lower) overflows; its density at lower is that at upper, so Mills'
    # ratio takes the exponential's place and nothing cancels.
    log_density = -0.5 * upper * upper - 0.5 * math.log(2 * math.pi)
    if upper <= 0:
        return math.exp(log_density) * max(0.0, mills_ratio(-upper) - mills_ratio(lower))
    return max(0.0, math.exp(log_normal_cdf(upper)) - math.exp(log_density) * mills_ratio(lower))


def gaussian_epsilon(delta: float, mu: float) -> float:
    """The least epsilon for ``delta``: finite for any noise at all, infinite without.

    Args:
        delta: between 0 and 1.
        mu: sensitivity over standard deviation.

    Balle and Wang 2018, theorem 8, solved for epsilon.
    """
    if gaussian_delta(0.0, mu) <= delta:
        return 0.0
    if mu * mu == math.inf:
        return math.inf
    # Chernoff's bound on the privacy loss, which is normal with mean mu**2/2 and variance mu**2.
    most = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    return _first(lambda epsilon: gaussian_delta(epsilon, mu) <= delta, 0.0, most)


def gaussian_noise_multiplier(epsilon: float, delta: float) -> float:
    """The least noise for one release: standard deviation over sensitivity.

    Balle and Wang 2018, algorithm 1, by bisection.
    """
    least = 0.0
    most = 1.0
    while gaussian_delta(epsilon, 1 / most) > delta:
        least, most = most, 2 * most
    return _first(lambda noise: gaussian_delta(epsilon, 1 / noise) <= delta, least, most)


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least number in (low, high] from which on ``holds``, to the last bits."""
    for _ in range(2000):
        middle = (low + high) / 2
        if middle in (low, high) or high - low <= 1e-14 * high:
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
