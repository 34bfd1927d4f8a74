"""The normal distribution far out in its tails, where the accountants live."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["log_normal_cdf", "mills_ratio", "normal_cdf"]

_SQRT_2 = math.sqrt(2.0)
#: exp(x**2) and erfc(x) are both exact floats up to here.
_LARGE = 25.0

_erfc = np.frompyfunc(math.erfc, 1, 1)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """P(Z <= x) of a standard normal Z, element by element, with full relative precision."""
    # Nearly all of a fine grid lies where the answer is 0 or 1 to the last bit.
    out = (x > 0).astype(np.float64)
    inside = (x > -38.5) & (x < 9.0)
    out[inside] = 0.5 * np.asarray(_erfc(-x[inside] / _SQRT_2), np.float64)
    return out


def mills_ratio(x: float) -> float:
    """P(Z > x) divided by the density at x, for x >= 0.

    From x = 35 on by the asymptotic series; Abramowitz and Stegun 1964, equation 7.1.23.
    """
    scaled = x / _SQRT_2
    if scaled < _LARGE:
        return math.sqrt(math.pi / 2) * math.exp(scaled * scaled) * math.erfc(scaled)
    # The first term left out, 105/x**8, is below 1e-10 here, and the next ones fall on.
    inverse = 1.0 / (x * x)
    term = total = 1.0
    for odd in range(1, 16, 2):
        term *= -odd * inverse
        total += term
    return total / x


def log_normal_cdf(x: float) -> float:
    """log P(Z <= x) of a standard normal Z, for any finite x."""
    if x > 0:
        return math.log1p(-0.5 * math.erfc(x / _SQRT_2))
    return math.log(mills_ratio(-x)) - 0.5 * x * x - 0.5 * math.log(2 * math.pi)
