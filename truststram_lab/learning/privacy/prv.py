"""Privacy random variables: the tight accountant for many rounds, by convolution.

Gopi, Lee and Wutschitz 2021, "Numerical Composition of Differential Privacy".
https://arxiv.org/abs/2106.02848
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...schemas.privacy import GaussianUse
from .gaussian import compose_mu
from .rdp import ORDERS, rdp_epsilon, rdp_total
from .special import normal_cdf

__all__ = ["SMALLEST_DELTA", "Bounds", "prv_epsilon"]

#: Below it the rounding of the Fourier transform is no longer small beside delta.
SMALLEST_DELTA = 1e-10

#: Wanted error of epsilon, relative to the RDP bound; coarser where the grid would be too large.
_RELATIVE_ERROR = 1e-3
_MOST_CELLS = 1 << 21


@dataclass(frozen=True)
class Bounds:
    """An estimate of epsilon between two bounds that hold."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True)
class _Loss:
    """The privacy loss of one step in one direction: its distribution and its mean."""

    mu: float
    rate: float
    #: The unit is in the data that the release was drawn from ("remove"), or it is not ("add").
    present: bool

    def cell_masses(self, edges: np.ndarray) -> np.ndarray:
        """P(edge < loss <= next edge) for rising ``edges``."""
        t = self._position(edges if self.present else -edges[::-1])
        # Each tail from its own side: differences of numbers near 1 have no digits left.
        below, above = self._mass_below(t), self._mass_above(t)
        masses = np.where(t[:-1] > self.mu / 2, above[:-1] - above[1:], below[1:] - below[:-1])
        out: np.ndarray = masses if self.present else masses[::-1]
        return out

    def mean(self) -> float:
        """E[loss], by the trapezoidal rule over the normals it is made of."""
        step = max(min(0.05, 0.1 / self.mu), 1e-4)
        z = np.arange(-12.0, 12.0 + step, step)
        weight = np.exp(-0.5 * z * z) * (step / math.sqrt(2 * math.pi))
        if not self.present:
            return -float((weight * self._value(z)).sum())
        return (1 - self.rate) * float((weight * self._value(z)).sum()) + self.rate * float(
            (weight * self._value(z + self.mu)).sum()
        )

    def _value(self, t: np.ndarray) -> np.ndarray:
        exponent = self.mu * t - self.mu * self.mu / 2
        if self.rate == 1:
            return exponent
        out: np.ndarray = np.logaddexp(math.log1p(-self.rate), math.log(self.rate) + exponent)
        return out

    def _position(self, value: np.ndarray) -> np.ndarray:
        """The t with the given log ratio; -infinity where the ratio never gets so low."""
        exponent = value
        if self.rate < 1:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                # log((exp(v) - (1 - q)) / q), from whichever end keeps the digits.
                large = value + np.log1p(-(1 - self.rate) * np.exp(-value))
                small = np.log(np.expm1(value) + self.rate)
                exponent = np.where(value > 1, large, small) - math.log(self.rate)
            exponent = np.where(np.isnan(exponent), -math.inf, exponent)
        return np.clip((exponent + self.mu * self.mu / 2) / self.mu, -1e300, 1e300)

    def _mass_below(self, t: np.ndarray) -> np.ndarray:
        if not self.present:
            return normal_cdf(t)
        return (1 - self.rate) * normal_cdf(t) + self.rate * normal_cdf(t - self.mu)

    def _mass_above(self, t: np.ndarray) -> np.ndarray:
        if not self.present:
            return normal_cdf(-t)
        return (1 - self.rate) * normal_cdf(-t) + self.rate * normal_cdf(self.mu - t)


def prv_epsilon(uses: Sequence[GaussianUse], delta: float) -> Bounds:
    """Epsilon of all ``uses`` together, with an error of about a thousandth.

    The privacy losses are rounded to a grid whose cells keep their means, and convolved by
    Fourier transform; the bounds are those of the paper's section 5, with Chernoff's bound on
    the tails (from the RDP curve) for the size of the grid. Both directions of add-or-remove are
    composed, and the worse one counts.

    Args:
        uses: with noise; sample rates may differ. All of them with full participation are one
            Gaussian, so they cost nothing.
        delta: from 1e-10 to below 1.

    Raises:
        ValueError: ``delta`` is too small, or a use has no noise.
    """
    if not SMALLEST_DELTA <= delta < 1:
        raise ValueError(f"PRV accounts from delta {SMALLEST_DELTA:g} on, not at {delta:g}.")
    if any(use.noise_multiplier == 0 for use in uses):
        raise ValueError("Without noise no epsilon is finite.")
    steps = _grouped(uses)
    if not steps:
        return Bounds(0.0, 0.0, 0.0)
    delta_error = delta / 1000
    curve = rdp_total(uses)
    reference, _ = rdp_epsilon(curve, delta)
    reach = _reach(curve, steps, delta_error)
    total = sum(steps.values())
    # Hoeffding's bound on the sum of the rounding errors, each within half a cell.
    spread = math.sqrt(total / 2 * math.log(12 / delta_error))
    cell = max(_RELATIVE_ERROR * max(reference, 1e-6) / spread, 2 * reach / _MOST_CELLS)
    error = cell * spread
    found = [_compose(steps, present, reach, cell) for present in (True, False)]

    def worst(at: float) -> float:
        return max(_solve(masses, losses, at) for masses, losses in found)

    return Bounds(
        max(0.0, worst(delta + delta_error) - error),
        worst(delta),
        worst(delta - delta_error) + error,
    )


def _grouped(uses: Sequence[GaussianUse]) -> dict[tuple[float, float], int]:
    """(mu, rate) -> steps; full participations together are one Gaussian."""
    steps: dict[tuple[float, float], int] = {}
    whole: list[float] = []
    for use in uses:
        mu = 1 / use.noise_multiplier
        if use.sample_rate == 1:
            whole.append(mu * math.sqrt(use.steps))
        else:
            key = (mu, use.sample_rate)
            steps[key] = steps.get(key, 0) + use.steps
    if whole:
        steps[compose_mu(whole), 1.0] = 1
    return steps


def _reach(curve: np.ndarray, steps: dict[tuple[float, float], int], delta_error: float) -> float:
    """A bound that the sum of the losses, and each loss, leaves with a chance below the error."""

    def chernoff(rdp: np.ndarray, chance: float) -> float:
        return float(np.min(rdp + math.log(1 / chance) / (ORDERS - 1)))

    total = sum(steps.values())
    alone = (
        chernoff(
            rdp_total([GaussianUse(noise_multiplier=1 / mu, sample_rate=rate)]),
            delta_error / (8 * total),
        )
        for mu, rate in steps
    )
    return max(chernoff(curve, delta_error / 8), *alone)


def _compose(
    steps: dict[tuple[float, float], int], present: bool, reach: float, cell: float
) -> tuple[np.ndarray, np.ndarray]:
    """Masses and places of the sum of all losses, on a circle that reaches both ways."""
    half = _fast_length(math.ceil(reach / cell) + 1)
    cells = 2 * half
    edges = (np.arange(cells + 1) - half - 0.5) * cell
    spectrum = np.ones(half + 1, np.complex128)
    shift = 0.0
    for (mu, rate), count in steps.items():
        loss = _Loss(mu, rate, present)
        masses = loss.cell_masses(edges)
        masses = masses / masses.sum()
        places = (np.arange(cells) - half) * cell
        shift += count * (loss.mean() - float(masses @ places))
        # Place 0 has to lie at index 0, or every convolution would move the sum.
        spectrum *= np.fft.rfft(np.fft.ifftshift(masses)) ** count
    out = np.fft.fftshift(np.fft.irfft(spectrum, cells))
    return out, (np.arange(cells) - half) * cell + shift


def _fast_length(least: int) -> int:
    """The next number 2**a * {1, 1.25, 1.5, 1.75}: transforms of that length are quick."""
    power = 1 << max(2, (least - 1).bit_length())
    return next(n for n in (5 * power // 8, 6 * power // 8, 7 * power // 8, power) if n >= least)


def _solve(masses: np.ndarray, losses: np.ndarray, delta: float) -> float:
    """The least epsilon >= 0 whose hockey-stick divergence is at most ``delta``."""

    def divergence(epsilon: float) -> float:
        first = int(np.searchsorted(losses, epsilon, "right"))
        return float(-(masses[first:] * np.expm1(epsilon - losses[first:])).sum())

    return _first_epsilon(divergence, delta, float(losses[-1]))


def _first_epsilon(divergence: Callable[[float], float], delta: float, most: float) -> float:
    if divergence(0.0) <= delta:
        return 0.0
    low, high = 0.0, most
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if divergence(middle) <= delta else (middle, high)
    return high
