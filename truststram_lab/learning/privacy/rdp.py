"""Renyi differential privacy of Gaussian noise on a Poisson sample: quick, and adds up.

Mironov, Talwar and Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian Mechanism".
https://arxiv.org/abs/1908.10530
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import numpy as np

from ...schemas.privacy import GaussianUse

__all__ = ["ORDERS", "rdp_epsilon", "rdp_of", "rdp_total"]

#: Near 1 for little noise, large for much of it; in between as fine as the optimum is sharp.
ORDERS = np.unique(
    np.concatenate(
        [
            1 + np.geomspace(1e-5, 0.09, 30),
            np.arange(11, 110) / 10,
            np.arange(11, 64),
            np.round(np.geomspace(64, 1024, 25)),
            2.0 ** np.arange(11, 21),
        ]
    )
)

#: From this sensitivity on (in standard deviations) sampling is not worth its arithmetic.
_LITTLE_NOISE = 1000.0
#: Integer orders up to here are sums of as many terms.
_MOST_TERMS = 4096


def rdp_of(noise_multiplier: float, sample_rate: float, orders: np.ndarray = ORDERS) -> np.ndarray:
    """The RDP of one step at each order, add-or-remove adjacency, float64 (orders,), in nats.

    Below a noise multiplier of 0.001, and above order 4096, sampling is given no credit: the
    value is then that of full participation, an upper bound.

    Args:
        noise_multiplier: standard deviation over sensitivity; 0 gives infinity.
        sample_rate: chance of a unit to be in the sample, 0 < rate <= 1.
        orders: above 1.

    Mironov et al. 2019, section 3.3: integer orders by the binomial sum, others by the integral
    that defines ``A``. Theorems 4 and 5: ``A`` is the worse of the two directions. Full
    participation: Mironov 2017, "Renyi Differential Privacy", proposition 7.
    """
    if noise_multiplier == 0:
        return np.full(len(orders), math.inf)
    with np.errstate(over="ignore"):
        full: np.ndarray = orders / (2 * np.float64(noise_multiplier) ** 2)
    mu = 1 / noise_multiplier
    if sample_rate == 1 or mu > _LITTLE_NOISE:
        return full
    sampled = full.copy()
    for place, order in enumerate(orders.tolist()):
        if order.is_integer():
            if order <= _MOST_TERMS:
                sampled[place] = _log_a_integer(int(order), mu, sample_rate) / (order - 1)
        elif order < 64:
            sampled[place] = _log_a(order, mu, sample_rate) / (order - 1)
    out: np.ndarray = np.minimum(sampled, full)
    return out


def _log_a_integer(order: int, mu: float, rate: float) -> float:
    # sum_k C(order, k) (1-q)**(order-k) q**k exp((k*k-k) mu**2 / 2); the same sum without the
    # exponentials is 1, and taking it off leaves positive terms: nothing cancels.
    k = np.arange(2, order + 1, dtype=np.float64)
    terms = (
        _log_binomials(order)[2:]
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + _log_expm1((k * k - k) * (mu * mu / 2))
    )
    most = float(terms.max())
    log_excess = most + math.log(float(np.exp(terms - most).sum()))
    return (
        float(np.logaddexp(0.0, log_excess)) if log_excess > 0 else math.log1p(math.exp(log_excess))
    )


@functools.lru_cache(maxsize=256)
def _log_binomials(order: int) -> np.ndarray:
    log_factorial = np.array([math.lgamma(k + 1) for k in range(order + 1)])
    out: np.ndarray = log_factorial[-1] - log_factorial - log_factorial[::-1]
    return out


def _log_expm1(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = x + np.log(-np.expm1(-x))
    return out


def _log_a(order: float, mu: float, rate: float) -> float:
    """log E[(1 - q + q exp(mu t - mu**2/2))**order] over a standard normal t.

    The trapezoidal rule: for a function analytic in a strip of half-width d its error falls as
    exp(-2 pi d / h) (Trefethen and Weideman 2014, theorem 5.1), and the nearest singularity
    lies pi / mu off the real line.
    """
    step = min(0.25, 0.4 / mu)
    # Two humps: without the unit about 0, with it about order * mu; elsewhere there is nothing.
    reach = 10.0
    humps = [0.0, order * mu]
    if humps[1] - humps[0] <= 2 * reach:
        t = np.arange(-reach, humps[1] + reach, step)
    else:
        t = np.concatenate([np.arange(h - reach, h + reach, step) for h in humps])
    exponent = mu * t - mu * mu / 2
    log_ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + exponent)
    log_weight = -0.5 * t * t + math.log(step / math.sqrt(2 * math.pi))
    if order * float(log_ratio.max()) < 300:
        # The mean of the ratio is 1: taken off, a tiny divergence keeps its digits.
        excess = rate * np.expm1(exponent)
        gain = np.expm1(order * np.log1p(excess)) - order * excess
        return math.log1p(float((np.exp(log_weight) * gain).sum()))
    terms = order * log_ratio + log_weight
    most = float(terms.max())
    return most + math.log(float(np.exp(terms - most).sum()))


@functools.lru_cache(maxsize=512)
def _rdp_by_default(noise_multiplier: float, sample_rate: float) -> np.ndarray:
    curve = rdp_of(noise_multiplier, sample_rate)
    curve.setflags(write=False)
    return curve


def rdp_total(uses: Iterable[GaussianUse]) -> np.ndarray:
    """The RDP of all ``uses`` together at each of ``ORDERS``: curves add up.

    Mironov 2017, proposition 1.
    """
    total = np.zeros(len(ORDERS))
    for use in uses:
        total += use.steps * _rdp_by_default(use.noise_multiplier, use.sample_rate)
    return total


def rdp_epsilon(rdp: np.ndarray, delta: float, orders: np.ndarray = ORDERS) -> tuple[float, float]:
    """The epsilon of an RDP curve at ``delta``, and the order that gives it.

    Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy",
    proposition 12 (https://arxiv.org/abs/2004.00010); Balle et al. 2020, "Hypothesis Testing
    Interpretations and Renyi Differential Privacy", theorem 21.
    """
    epsilons = rdp + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    best = int(np.argmin(epsilons))
    return max(0.0, float(epsilons[best])), float(orders[best])
