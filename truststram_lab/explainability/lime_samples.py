"""What LIME needs of the training data, and the perturbations drawn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interfaces import Floats
from .rows import Rows

__all__ = ["ColumnBins", "TrainingStatistics"]


@dataclass(frozen=True)
class ColumnBins:
    """One column's bins: intervals between quartiles, or single values.

    Args:
        bounds: a number falls into bin ``searchsorted(bounds, x)``, a missing one into the bin
            after the last; empty for single values.
        values: the value of each bin where bins are single values (None: missing).
        shares: how often each bin occurred.
        low, high, mean, spread: of each interval, what its truncated normal is drawn from.
    """

    bounds: Floats
    values: tuple[Any, ...]
    shares: Floats
    low: Floats
    high: Floats
    mean: Floats
    spread: Floats

    @property
    def numeric(self) -> bool:
        """Whether bins are intervals."""
        return not self.values

    def bins(self, column: Sequence[Any]) -> NDArray[np.intp]:
        """The bin of each value; -1 for a value that never occurred."""
        if self.numeric:
            numbers = np.array([np.nan if v is None else v for v in column], dtype=np.float64)
            found = np.searchsorted(self.bounds, numbers)
            found[np.isnan(numbers)] = len(self.bounds) + 1
            return found
        place = {_key(value): at for at, value in enumerate(self.values)}
        return np.array([place.get(_key(value), -1) for value in column], dtype=np.intp)

    def words(self, name: str, place: int, value: Any) -> str:
        """A bin as a condition on the column."""
        if not self.numeric:
            return f"{name} = {'missing' if value is None else value}"
        if value is None:
            return f"{name} = missing"
        if place == 0:
            return f"{name} <= {self.bounds[0]:.2f}"
        if place == len(self.bounds):
            return f"{name} > {self.bounds[-1]:.2f}"
        return f"{self.bounds[place - 1]:.2f} < {name} <= {self.bounds[place]:.2f}"


@dataclass(frozen=True)
class TrainingStatistics:
    """What of the training data LIME draws perturbations from; a model may carry it.

    A model that has an attribute ``training_statistics`` of this type is explained by
    ``LIMEExplainer`` without any rows.

    Args:
        names: the columns, in order; ``columns``: their bins.
    """

    names: tuple[str, ...]
    columns: tuple[ColumnBins, ...]

    @classmethod
    def of(cls, rows: Rows, categorical: Sequence[int] = ()) -> TrainingStatistics:
        """Quartile bins of numbers; single values of text, categories, booleans and gaps."""
        shown = rows.values_shown()
        columns = []
        for place in range(rows.width):
            column = [row[place] for row in shown]
            known = [v for v in column if v is not None]
            numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
            if numbers and known and place not in categorical:
                columns.append(_quartiles(np.array(known, np.float64), len(column) - len(known)))
            else:
                columns.append(_singles(column))
        return cls(rows.names, tuple(columns))

    def draw(self, count: int, rng: np.random.Generator) -> tuple[NDArray[np.intp], list[Any]]:
        """Perturbations: their bins (count, columns), and each column's values."""
        bins = np.empty((count, len(self.columns)), dtype=np.intp)
        values = []
        for place, column in enumerate(self.columns):
            drawn = rng.choice(len(column.shares), size=count, p=column.shares)
            bins[:, place] = drawn
            values.append(_values(column, drawn, rng))
        return bins, values


def _key(value: Any) -> Any:
    # True == 1 == 1.0 in Python; a missing value equals another.
    return ("missing",) if value is None or value != value else (isinstance(value, bool), value)


def _quartiles(known: Floats, missing: int) -> ColumnBins:
    bounds = np.unique(np.percentile(known, [25, 50, 75]))
    bins = np.searchsorted(bounds, known)
    count = np.bincount(bins, minlength=len(bounds) + 1)
    safe = np.maximum(count, 1)
    mean = np.bincount(bins, weights=known, minlength=len(count)) / safe
    apart = np.bincount(bins, weights=(known - mean[bins]) ** 2, minlength=len(count))
    low, high = np.append(known.min(), bounds), np.append(bounds, known.max())
    spread = np.sqrt(apart / safe)
    if missing:
        count = np.append(count, missing)
        low, high, mean, spread = (np.append(part, np.nan) for part in (low, high, mean, spread))
    return ColumnBins(bounds, (), count / count.sum(), low, high, mean, spread)


def _singles(column: list[Any]) -> ColumnBins:
    counts: dict[Any, list[Any]] = {}
    for value in column:
        counts.setdefault(_key(value), [value, 0])[1] += 1
    listed = sorted(counts.values(), key=lambda entry: str(entry[0]))
    none = np.empty(0)
    shares = np.array([number for _, number in listed], dtype=np.float64)
    values = tuple(value for value, _ in listed)
    return ColumnBins(none, values, shares / shares.sum(), none, none, none, none)


def _values(column: ColumnBins, drawn: NDArray[np.intp], rng: np.random.Generator) -> Any:
    if not column.numeric:
        values = np.empty(len(column.values), dtype=object)
        values[:] = column.values
        return values[drawn]
    # Between the bin's ends: a normal with the bin's mean and spread, by its inverse.
    from scipy.special import ndtr, ndtri

    spread = np.maximum(column.spread, 1e-11)  # NaN stays: a missing value is drawn as one
    ends = (column.low - column.mean) / spread, (column.high - column.mean) / spread
    low, high = ndtr(np.clip(ends[0], -37, 37)), ndtr(np.clip(ends[1], -37, 37))
    at = low[drawn] + rng.random(len(drawn)) * (high - low)[drawn]
    found = column.mean[drawn] + spread[drawn] * ndtri(np.clip(at, 1e-300, 1 - 1e-16))
    return np.clip(found, column.low[drawn], column.high[drawn])
