"""The weighted mean of the updates, in the memory of three models however many there are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from ...exceptions import InvalidInputError
from ..weights import State
from .blocks import BLOCK, is_count, like, spans, to_type
from .reading import HeldUpdates, Updates, check_block, check_layout

__all__ = ["Mean", "fed_avg"]

#: Numbers that are read at once: half a megabyte of float32, for which a call is cheap.
_READ = 2**17


class Mean:
    """A weighted mean that takes one update after the other.

    Sums are in float64 and in the given order: the same order gives the same bits. They take
    the memory of two float32 models; an update is needed only while it is added.

    Args:
        weights: one positive number a site, usually its number of rows; only ratios matter.
        expected: what an update must look like; left out, it is the first update.

    Raises:
        InvalidInputError: a weight is not positive and finite.

    McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", algorithm 1. https://arxiv.org/abs/1602.05629
    """

    def __init__(
        self, weights: Sequence[float], expected: Mapping[str, np.ndarray] | None = None
    ) -> None:
        for weight in weights:
            if not (math.isfinite(weight) and weight > 0):
                raise InvalidInputError(
                    f"{weight} is no weight of a site; use its number of rows, 1 or more.",
                    field="weights",
                )
        self._weights = weights
        self._total = math.fsum(weights)
        self._like = None if expected is None else like(expected)
        self._sums: State = {}
        self._seen = 0
        self._scratch = np.empty(BLOCK, np.float64)

    def add(self, update: Mapping[str, np.ndarray]) -> None:
        """Take the next site's update; it is not changed and not kept.

        Raises:
            InvalidInputError: every weight has its update already.
            UpdateRejectedError: the update does not look as expected, or is not finite.
        """
        self.add_from(HeldUpdates([update]), 0)

    def add_from(self, updates: Updates, place: int) -> None:
        """Take the update at ``place``, of which only a block at a time is in memory.

        After an error the mean is of no use any more.

        Raises:
            InvalidInputError: every weight has its update already.
            UpdateRejectedError: the update does not look as expected, or is not finite.
        """
        if self._seen == len(self._weights):
            raise InvalidInputError(
                f"There are more updates than the {len(self._weights)} weights; give one weight "
                "a site.",
                field="weights",
            )
        if self._like is None:
            self._like = like(updates.layout(place))
        check_layout(updates.layout(place), self._like)
        if not self._sums:
            self._sums = {n: np.zeros(a.size, np.float64) for n, a in self._like.items()}
        share = self._weights[self._seen] / self._total
        for name, array in self._like.items():
            for part in spans(array.size, _READ):
                block = updates.block(place, name, part)
                check_block(partial(updates.block, place), block, name, array)
                self._accumulate(self._sums[name][part], block, share)
        self._seen += 1

    def _accumulate(self, sums: np.ndarray, block: np.ndarray, share: float) -> None:
        for part in spans(block.size):
            scaled = self._scratch[: part.stop - part.start]
            scaled[...] = block[part]
            scaled *= share
            sums[part] += scaled

    def result(self) -> State:
        """The mean, in the updates' own types; whole numbers are rounded to the nearest.

        It is built in the memory of the sums, so it can be asked for once.

        Raises:
            InvalidInputError: another number of updates than weights came, or none.
        """
        if self._like is None or not self._seen or self._seen != len(self._weights):
            raise InvalidInputError(
                f"{self._seen} updates came for {len(self._weights)} weights; give one update and "
                "one weight a site, at least one.",
                field="weights",
            )
        found: State = {}
        for name, shape in self._like.items():
            found[name] = _narrowed(self._sums.pop(name), shape, name)
        self._weights, self._seen = (), 0
        return found


def _narrowed(sums: np.ndarray, shape: np.ndarray, name: str) -> np.ndarray:
    if is_count(shape) or shape.dtype.itemsize > sums.dtype.itemsize:
        return to_type(sums, shape.dtype, name).reshape(shape.shape)
    # A narrower number never reaches beyond what was read already, so the sums' own memory
    # takes the result from its start: with a copy the peak would be half a sum higher.
    narrow = sums.view(shape.dtype)[: sums.size]
    for part in spans(sums.size):
        narrow[part] = sums[part].astype(shape.dtype)
    return narrow.reshape(shape.shape)


def fed_avg(deltas: Iterable[Mapping[str, np.ndarray]], weights: Sequence[float]) -> State:
    """The weighted mean of the sites' updates.

    ``deltas`` is read once and in order, and only one update is held at a time, so memory is
    that of three models however many sites there are. Sums are in float64 and in the given
    order: the same order gives the same bits. The result has the updates' own type; whole
    numbers, such as BatchNorm's ``num_batches_tracked``, are rounded to the nearest.

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
    mean = Mean(weights)
    for update in deltas:
        mean.add(update)
    return mean.result()
