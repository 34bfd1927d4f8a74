"""The statistics round under differential privacy: counts, means and variances with noise.

Every value is clipped to bounds that come from outside the data (a range of ages, not the
ages' range), so that one row, or one site, can move the sums only so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...exceptions import InvalidInputError, nearest
from ...schemas.tables import ColumnStatistics, Signature, Statistics
from ..columns import Table, category_codes, check_columns, numeric_values, row_count
from ..statistics import check_moments, empty_moments
from ..weights import State
from .noise import NoiseSource, SecureRandom, add_noise

__all__ = ["Bound", "noised_moments", "noised_site_statistics", "record_sensitivity"]

#: The least and the greatest value of a numeric column, known without its rows.
Bound = tuple[float, float]


def record_sensitivity(signature: Signature) -> float:
    """How far one row more or less moves the released sums, in the L2 norm.

    Each row adds 1 to the rows; for each measured column 1 to the count and, scaled to [-1, 1],
    at most 1 to the sum and 1 to the sum of squares; for each categorical one 1 to one count.
    """
    measured = sum(column.kind != "categorical" for column in signature.columns)
    return math.sqrt(1 + 3 * measured + (len(signature.columns) - measured))


def noised_moments(
    table: Table,
    signature: Signature,
    bounds: Mapping[str, Bound],
    noise_multiplier: float,
    *,
    rng: NoiseSource | None = None,
) -> State:
    """A site's moments with record-level noise, in the layout of ``statistics.local_moments``.

    One Gaussian release (no sampling, one step) of noise multiplier ``noise_multiplier``, with
    sensitivity ``record_sensitivity``; what makes the counts add up again comes after the noise
    and spends nothing. A column whose noised count is below 1 has no mean.

    Args:
        table: the site's feature columns.
        bounds: numeric column -> (low, high), in column units; values outside are clipped.
            Boolean columns need none.
        noise_multiplier: not negative.
        rng: noise source; by default a new key that is kept nowhere.

    Raises:
        InvalidInputError: a numeric column has no bounds, bounds are no range, or the columns
            are not the signature's.

    Balle and Wang 2018, section 2 (the Gaussian mechanism on a vector-valued sum).
    https://arxiv.org/abs/1805.06530
    """
    check_columns(table.keys(), signature)
    ranges = _ranges(signature, bounds)
    sums = [np.array([row_count(table)], np.float64)]
    for column in signature.columns:
        values = table[column.name]
        if column.kind == "categorical":
            codes = category_codes(values, column)
            counts = np.bincount(codes[codes >= 0], minlength=len(column.categories))
            sums.append(counts.astype(np.float64))
            continue
        numbers = numeric_values(values, column)
        scaled = _scale(numbers[~np.isnan(numbers)], ranges[column.name])
        sums.append(np.array([len(scaled), scaled.sum(), np.square(scaled).sum()]))
    sigma = noise_multiplier * record_sensitivity(signature)
    source = SecureRandom() if rng is None else rng
    noised = [add_noise(part, sigma, rng=source) for part in sums]
    return _consistent(noised, signature, ranges)


def _ranges(signature: Signature, bounds: Mapping[str, Bound]) -> dict[str, Bound]:
    measured = [column for column in signature.columns if column.kind != "categorical"]
    names = [column.name for column in measured]
    for name in bounds:
        if name not in names:
            close = nearest(name, names)
            hint = f"did you mean {close[0]!r}?" if close else "only measured columns have bounds."
            raise InvalidInputError(
                f"There are bounds for {name!r}, which is no measured column; {hint}", field=name
            )
    ranges: dict[str, Bound] = {}
    for column in measured:
        if column.kind == "boolean" and column.name not in bounds:
            ranges[column.name] = (0.0, 1.0)
            continue
        if column.name not in bounds:
            raise InvalidInputError(
                f"Column {column.name!r} has no bounds, and without them one row could move its "
                "mean anywhere; give the least and the greatest value it can have, from "
                "knowledge and not from the rows.",
                field=column.name,
            )
        low, high = bounds[column.name]
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InvalidInputError(
                f"Column {column.name!r} has the bounds {low:g} and {high:g}; the first must be "
                "the smaller one.",
                field=column.name,
            )
        ranges[column.name] = (low, high)
    return ranges


def _scale(values: np.ndarray, bound: Bound) -> np.ndarray:
    low, high = bound
    out: np.ndarray = (np.clip(values, low, high) - (low + high) / 2) / ((high - low) / 2)
    return out


def _unscaled(mean: float, square: float, bound: Bound) -> tuple[float, float]:
    """Mean and variance in column units from those of the scaled values, both made possible."""
    low, high = bound
    half = (high - low) / 2
    mean = min(1.0, max(-1.0, mean))
    variance = min(1.0 - mean * mean, max(0.0, square - mean * mean))
    return (low + high) / 2 + half * mean, half * half * variance


def _consistent(
    noised: Sequence[np.ndarray], signature: Signature, ranges: Mapping[str, Bound]
) -> State:
    """Moments that some table could have, from noised sums."""
    moments = empty_moments(signature)
    rows = max(0, round(float(noised[0][0])))
    moments["rows"][0] = rows
    measured = counted = 0
    for place, (column, part) in enumerate(zip(signature.columns, noised[1:], strict=True)):
        if column.kind == "categorical":
            counts = _at_most(np.maximum(part, 0.0), rows)
            moments["categories"][counted : counted + len(counts)] = counts
            moments["missing"][place] = rows - int(counts.sum())
            counted += len(counts)
            continue
        count = min(rows, max(0, round(float(part[0]))))
        moments["count"][measured] = count
        moments["missing"][place] = rows - count
        if count:
            mean, variance = _unscaled(part[1] / count, part[2] / count, ranges[column.name])
            moments["mean"][measured], moments["m2"][measured] = mean, variance * count
        measured += 1
    return moments


def _at_most(counts: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in the ratio of ``counts`` that sum to at most ``total``."""
    whole = np.rint(counts)
    if whole.sum() > total:
        whole = np.floor(counts * (total / counts.sum()))
    out: np.ndarray = whole.astype(np.int64)
    return out


def noised_site_statistics(
    moments: Sequence[Mapping[str, np.ndarray]],
    signature: Signature,
    bounds: Mapping[str, Bound],
    *,
    noise_multiplier: float,
    sites: int,
    rng: NoiseSource | None = None,
) -> Statistics:
    """The federation's aggregates with client-level noise, from the sites' own moments.

    Every site weighs the same: it adds its mean and its mean square, scaled to [-1, 1], and
    the shares of its categories. A site that did not come counts as zero. So the means are means
    of sites, and no count of rows is released: ``rows`` and ``count`` are 0, ``missing`` too,
    and ``category_counts`` are parts of a thousand.

    One Gaussian release of noise multiplier ``noise_multiplier``, add-or-remove of a site.

    Args:
        moments: of the sites that came, in the layout of ``statistics.local_moments``.
        bounds: as in ``noised_moments``.
        sites: of the federation, the fixed denominator.

    Raises:
        InvalidInputError: more sites came than there are, or see ``noised_moments``.
        UpdateRejectedError: a site's moments are impossible.
    """
    if not len(moments) <= sites:
        raise InvalidInputError(
            f"{len(moments)} sites came, but the federation has {sites}; give the number of all.",
            field="sites",
        )
    ranges = _ranges(signature, bounds)
    total = np.zeros(len(_site_vector(empty_moments(signature), signature, ranges)))
    for site in moments:
        check_moments(site, signature, 1)
        total += _site_vector(site, signature, ranges)
    # A measured column adds a vector of norm at most sqrt(2), a categorical one at most 1.
    measured = len(ranges)
    sensitivity = math.sqrt(2 * measured + len(signature.columns) - measured)
    noised = add_noise(total, noise_multiplier * sensitivity, rng=rng) / max(sites, 1)
    columns: list[ColumnStatistics] = []
    at = 0
    for column in signature.columns:
        if column.kind == "categorical":
            shares = np.maximum(noised[at : at + len(column.categories)], 0.0)
            at += len(column.categories)
            counts = _at_most(1000 * shares, 1000).tolist()
            columns.append(
                ColumnStatistics(name=column.name, count=0, missing=0, category_counts=counts)
            )
            continue
        mean, variance = _unscaled(float(noised[at]), float(noised[at + 1]), ranges[column.name])
        at += 2
        columns.append(
            ColumnStatistics(name=column.name, count=0, missing=0, mean=mean, variance=variance)
        )
    return Statistics(rows=0, sites=sites, columns=columns)


def _site_vector(
    site: Mapping[str, np.ndarray], signature: Signature, ranges: Mapping[str, Bound]
) -> np.ndarray:
    parts: list[np.ndarray] = []
    rows = max(1, int(site["rows"][0]))
    measured = counted = 0
    for column in signature.columns:
        if column.kind == "categorical":
            width = len(column.categories)
            parts.append(site["categories"][counted : counted + width] / rows)
            counted += width
            continue
        low, high = ranges[column.name]
        half = (high - low) / 2
        count = int(site["count"][measured])
        mean = (float(site["mean"][measured]) - (low + high) / 2) / half if count else 0.0
        square = float(site["m2"][measured]) / (count * half * half) if count else 0.0
        mean = min(1.0, max(-1.0, mean))
        parts.append(np.array([mean, min(1.0, square + mean * mean)]))
        measured += 1
    return np.concatenate(parts) if parts else np.zeros(0)
