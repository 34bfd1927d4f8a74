"""How the platform makes one update of many: pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..exceptions import InvalidInputError
from .weights import State, check_update

__all__ = ["fed_avg"]


def fed_avg(deltas: Iterable[Mapping[str, np.ndarray]], weights: Sequence[float]) -> State:
    """The weighted mean of the sites' updates.

    ``deltas`` is read once and in order, and only one update is held at a time, so memory is
    that of two models however many sites there are. Sums are in float64 and in the given
    order: the same order gives the same bits. The result has the updates' own type.

    Args:
        deltas: updates with equal names, shapes and types.
        weights: one positive number a site, usually its number of rows; only ratios matter.

    Raises:
        InvalidInputError: no update, another number of updates than weights, a weight that
            is not positive and finite.
        UpdateRejectedError: an update does not look like the first one.

    McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", algorithm 1. https://arxiv.org/abs/1602.05629
    """
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise InvalidInputError(
                f"{weight} is no weight of a site; use its number of rows, 1 or more.",
                field="weights",
            )
    total = math.fsum(weights)
    sums: State = {}
    like: State = {}
    seen = 0
    for update in deltas:
        if seen == len(weights):
            raise InvalidInputError(
                f"There are more updates than the {len(weights)} weights; give one weight a site.",
                field="weights",
            )
        if seen == 0:
            # Names, shapes and types without the values: a broadcast zero takes no memory.
            like = {n: np.broadcast_to(np.zeros((), a.dtype), a.shape) for n, a in update.items()}
            sums = {n: np.zeros(a.shape, np.float64) for n, a in update.items()}
        check_update(update, like)
        share = weights[seen] / total
        for name, array in update.items():
            sums[name] += share * array.astype(np.float64)
        seen += 1
    if seen != len(weights) or seen == 0:
        raise InvalidInputError(
            f"{seen} updates came for {len(weights)} weights; give one update and one weight a "
            "site, at least one.",
            field="weights",
        )
    return {name: sums[name].astype(like[name].dtype) for name in sums}
