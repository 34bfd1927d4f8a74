"""Robust rules that look at every coordinate by itself: median and trimmed mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...exceptions import InvalidInputError
from ...schemas.strategies import TrimmedMean, as_strategy
from ..weights import State
from .blocks import is_count, to_type
from .reading import Updates, check_layout, columns

__all__ = ["median", "trimmed_mean"]


def median(updates: Updates, expected: Mapping[str, np.ndarray]) -> State:
    """The median of every coordinate; of an even number, the mean of the two in the middle.

    Whole numbers take the lower of the two: a number that a site did send. Every update
    weighs the same, because a hostile site would say that it has many rows.

    Args:
        updates: one or more, read block by block.
        expected: names, shapes and types that every update must have.

    Raises:
        InvalidInputError: there is no update.
        UpdateRejectedError: an update does not look like ``expected``, or is not finite.

    Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
    Rates", definition 1 and option I of algorithm 1. https://arxiv.org/abs/1803.01498
    """
    count = len(updates)
    if not count:
        raise InvalidInputError("No update came; a median needs one or more.", field="updates")
    low, high = (count - 1) // 2, count // 2

    def middle(ordered: np.ndarray) -> np.ndarray:
        if ordered.dtype.kind in "iub" or low == high:
            return ordered[:, low].astype(np.float64)
        # Halved first: the sum of two float64 can be beyond float64.
        halves: np.ndarray = 0.5 * ordered[:, low].astype(np.float64)
        halves += 0.5 * ordered[:, high].astype(np.float64)
        return halves

    return _by_column(updates, expected, middle)


def trimmed_mean(updates: Updates, expected: Mapping[str, np.ndarray], fraction: float) -> State:
    """The mean of every coordinate without its k lowest and k highest values.

    k is ``fraction`` times the number of updates, rounded down. Whole numbers are rounded to
    the nearest. Every update weighs the same, because a hostile site would say that it has
    many rows.

    Args:
        updates: read block by block.
        expected: names, shapes and types that every update must have.
        fraction: 0 <= fraction < 0.5, at least the share of hostile sites.

    Raises:
        InvalidInputError: there is no update, or so few that none would be trimmed although
            ``fraction`` is not 0.
        UpdateRejectedError: an update does not look like ``expected``, or is not finite.

    Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
    Rates", definition 2 and option II of algorithm 1. https://arxiv.org/abs/1803.01498
    """
    rule, count = as_strategy({"name": "trimmed_mean", "fraction": fraction}), len(updates)
    assert isinstance(rule, TrimmedMean)
    cut = rule.trimmed(count)
    if not count or (fraction > 0 and cut == 0):
        raise InvalidInputError(
            f"{count} updates came, but a trimmed mean of fraction {fraction:g} takes "
            f"{rule.least_updates} or more, or it would trim none; wait for more sites, or choose "
            "median.",
            field="fraction",
        )

    def inner(ordered: np.ndarray) -> np.ndarray:
        kept: np.ndarray = ordered[:, cut : count - cut].mean(axis=1, dtype=np.float64)
        return kept

    return _by_column(updates, expected, inner)


def _by_column(
    updates: Updates,
    expected: Mapping[str, np.ndarray],
    rule: Callable[[np.ndarray], np.ndarray],
) -> State:
    """Apply ``rule`` to the sorted values, (columns, updates), of every array."""
    for place in range(len(updates)):
        check_layout(updates.layout(place), expected)
    found: State = {}
    for name, array in expected.items():
        flat = np.empty(array.size, array.dtype)
        for part, block in columns(updates, name, array):
            # Sorted as a whole, not partitioned: the order of a partition depends on the
            # machine, and with it the last bit of a sum.
            ordered = np.ascontiguousarray(block.T)
            ordered.sort(axis=1)
            values = rule(ordered)
            flat[part] = to_type(values, array.dtype, name) if is_count(array) else values
        found[name] = flat.reshape(array.shape)
    return found
