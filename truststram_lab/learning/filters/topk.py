"""The largest coordinates of an array: exactly so many, whatever the values are."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np

from ..encodings import Compact, Levels
from .kinds import Part

__all__ = ["largest", "sparsify"]

#: Values looked at at a time: what they pass through fits a processor's cache.
_CHUNK = 1 << 16


def sparsify(part: Part, share: float) -> Part:
    """Keep the ``ceil(share * size)`` coordinates with the largest magnitudes; clear the rest.

    Of equal magnitudes the one with the lowest index is kept. Zeros are not stored, so an array
    with fewer other values keeps just those. Integers pass as they are.

    Args:
        part: an array of any shape; an earlier sparsification counts with its cleared zeros.
        share: over 0, up to 1; taken as the decimal that it prints as, so that 0.07 of 100 is 7.

    Stich, Cordonnier, Jaggi 2018, "Sparsified SGD with Memory", definition 2.1 (top-k).
    https://arxiv.org/abs/1809.07599
    """
    if not isinstance(part, Compact):
        return part
    wanted = math.ceil(Decimal(repr(share)) * part.size)
    levels = part.levels
    values = part.values if isinstance(part.values, np.ndarray) else part.values.codes
    if wanted >= part.kept:
        return part
    chosen = largest(values, wanted)
    kept: np.ndarray | Levels = values[chosen]
    if levels is not None:
        kept = Levels(values[chosen], levels.scale, levels.bits)
    indices = chosen if part.indices is None else part.indices[chosen]
    return Compact(part.shape, part.dtype, indices, kept)


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the ``count`` values with the largest magnitudes, zeros left out, ascending.

    Two stages, and exact. First a bound: cut the values into groups, at least ``count`` of them;
    then ``count`` groups have a maximum as large as the ``count``-th largest of these maxima, and
    therefore ``count`` values do, too. Only what reaches that bound, little more than ``count`` in
    practice, is sorted out exactly. Hostile values cost time up to that of a full selection.

    Args:
        values: finite floats or integers (n,).
        count: 1 to n.

    Returns:
        int64 (at most count,), strictly increasing; of equal magnitudes the lowest places.
    """
    places: np.ndarray = _reaching(values, _bound(values, count))
    sizes = np.abs(values[places])
    if places.size <= count:
        return places
    last = np.partition(sizes, places.size - count)[places.size - count]
    keep = sizes > last
    equal = np.flatnonzero(sizes == last)
    keep[equal[: count - int(np.count_nonzero(keep))]] = True
    chosen: np.ndarray = places[keep]
    return chosen


def _bound(values: np.ndarray, count: int) -> Any:
    """A magnitude that at least ``count`` of the values reach."""
    # Three times as many groups as wanted values: then the bound passes about a fifth too many.
    groups = min(3 * count, values.size)
    high, low = values[:groups].copy(), values[:groups].copy()
    # Value i is in group i modulo groups: large neighbours, one layer's, are spread over many.
    for start in range(groups, values.size - groups + 1, groups):
        row = values[start : start + groups]
        np.maximum(high, row, out=high)
        np.minimum(low, row, out=low)
    np.maximum(high, -low, out=high)
    return np.partition(high, groups - count)[groups - count]


def _reaching(values: np.ndarray, bound: Any) -> np.ndarray:
    """Places of the values with a magnitude of at least ``bound`` that are not 0."""
    if not bound:
        return np.flatnonzero(values).astype(np.int64, copy=False)
    found = []
    up, down = np.empty(_CHUNK, bool), np.empty(_CHUNK, bool)
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        reach, low = up[: part.size], down[: part.size]
        np.greater_equal(part, bound, out=reach)
        np.less_equal(part, -bound, out=low)
        np.logical_or(reach, low, out=reach)
        places = np.flatnonzero(reach)
        places += start
        found.append(places)
    return np.concatenate(found).astype(np.int64, copy=False)
