"""What pairs of measurements say: two ways in turn, so that both saw the same machine."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from scipy.stats import t as student


def in_turn(count: int) -> Iterator[bool]:
    """For each pair: measure with it (True) and without it (False).

    Who goes first changes from pair to pair, so that a drift of the machine favours nobody.
    """
    for number in range(count):
        first = number % 2 == 0
        yield first
        yield not first


def mean_with_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and the ends of its confidence interval (Student's t over the pairs)."""
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(student.ppf((1 + level) / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def difference(with_it: Sequence[float], without: Sequence[float]) -> tuple[float, float, float]:
    """Mean difference of the pairs and its 95 % interval, in the values' unit."""
    return mean_with_interval([a - b for a, b in zip(with_it, without, strict=True)])


def ratio(with_it: Sequence[float], without: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean ratio of the pairs and its 95 % interval."""
    logs = [math.log(a / b) for a, b in zip(with_it, without, strict=True)]
    mean, low, high = mean_with_interval(logs)
    return math.exp(mean), math.exp(low), math.exp(high)


def percent(found: tuple[float, float, float]) -> str:
    """A ratio and its interval as a change in percent."""
    mean, low, high = (100 * (value - 1) for value in found)
    return f"{mean:+.1f} % (95 % interval {low:+.1f} to {high:+.1f} %)"
