"""Rows into numbers: the same numbers in a notebook's training and in a platform's worker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..exceptions import InvalidInputError
from ..learning.columns import category_codes, check_columns, check_numbers, unchecked_numbers
from ..schemas.tables import Column, ColumnStatistics, Signature, Statistics

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableEncoder", "encoded_width"]

#: A standard deviation below this share of the mean is rounding, not variation.
_CONSTANT = 1e-12

#: Standard deviations from the mean beyond which a network's sums leave the range of a float.
_ABSURD = 1e100


def encoded_width(signature: Signature) -> int:
    """How many numbers one row becomes."""
    return sum(_width(column) for column in signature.columns)


def _width(column: Column) -> int:
    own = len(column.categories) if column.kind == "categorical" else 1
    return own + column.nullable


class TableEncoder:
    """Encodes rows with the federation's aggregates.

    A numeric or boolean column becomes ``(x - mean) / std``, and 0 where missing; a
    categorical one becomes a 0/1 number a category. A nullable column of either kind has
    one more 0/1 number: "was missing". Columns stand in the signature's order.

    Args:
        signature: columns and categories.
        statistics: means, variances and counts of the same columns, in the same order.

    Raises:
        InvalidInputError: the statistics are of other columns.
    """

    def __init__(self, signature: Signature, statistics: Statistics) -> None:
        names = [column.name for column in signature.columns]
        found = [column.name for column in statistics.columns]
        if names != found:
            raise InvalidInputError(
                f"The statistics are of {len(found)} columns ({', '.join(found[:3])}, ...), not of "
                f"the signature's {len(names)}; use those that were stored with the model."
            )
        self.signature = signature
        self.statistics = statistics
        #: (column name, its slice of an encoded row), in the signature's order
        self.groups: list[tuple[str, slice]] = []
        start = 0
        for column in signature.columns:
            stop = start + _width(column)
            self.groups.append((column.name, slice(start, stop)))
            start = stop
        self.width = start
        measured = [entry for entry in self._columns() if entry[1].kind != "categorical"]
        self._measured = [column for _, column, _ in measured]
        self._value_places = [place.start for (_, place), _, _ in measured]
        self._missing_places = [place.stop - 1 for (_, place), c, _ in measured if c.nullable]
        self._nullable = np.array([c.nullable for c in self._measured], bool)
        self._boolean = np.array([c.kind == "boolean" for c in self._measured], bool)
        self._measured_columns = [
            place for place, c in enumerate(signature.columns) if c.kind != "categorical"
        ]
        self._onehots = [
            (place, np.arange(slots.start, slots.stop))
            for place, ((_, slots), column) in enumerate(
                zip(self.groups, signature.columns, strict=True)
            )
            if column.kind == "categorical"
        ]
        scales = [_mean_and_std(aggregate) for _, _, aggregate in measured]
        self._means = np.array([mean for mean, _ in scales])
        self._stds = np.array([std for _, std in scales])

    def encode_frame(self, frame: pd.DataFrame) -> np.ndarray:
        """Encode a data frame: float64 (n, width).

        Raises:
            InvalidInputError: the columns are not exactly the signature's (in any order), or
                a value is unusable; the message names column and row.
        """
        return self._encode(frame, len(frame))

    def encode_rows(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Encode rows given as mappings of column name to value: float64 (n, width).

        Equal to ``encode_frame`` of the same rows, bit by bit; needs no pandas.

        Raises:
            InvalidInputError: as ``encode_frame``.
        """
        names = [column.name for column in self.signature.columns]
        known = set(names)
        for row in rows:
            if row.keys() != known:
                check_columns(row.keys(), self.signature)
        return self._encode({name: [row[name] for row in rows] for name in names}, len(rows))

    def baseline(self) -> np.ndarray:
        """The federation's average row, encoded: float64 (width,).

        0 for numeric and boolean columns (their mean), the share of rows for every
        category and for "was missing".
        """
        out = np.zeros(self.width)
        rows = max(self.statistics.rows, 1)
        for (_, place), column, aggregate in self._columns():
            if column.kind == "categorical":
                counts = aggregate.category_counts or [0] * len(column.categories)
                out[place][: len(counts)] = np.asarray(counts) / rows
            if column.nullable:
                out[place][-1] = aggregate.missing / rows
        return out

    def _columns(self) -> zip[tuple[tuple[str, slice], Column, ColumnStatistics]]:
        return zip(self.groups, self.signature.columns, self.statistics.columns, strict=True)

    def encode_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Encode rows that were read and checked before: float64 (n, width).

        Equal to ``encode_rows`` of the same rows, bit by bit.

        Args:
            matrix: (n, columns) in the signature's order: numbers and booleans, NaN where
                missing; categories as places in their column's list, -1 where missing.
        """
        out = np.zeros((len(matrix), self.width))
        every = np.arange(len(matrix))
        for place, slots in self._onehots:
            # -1 is the last slot: "was missing" where the column is nullable.
            out[every, slots[matrix[:, place].astype(np.int64)]] = 1.0
        numbers = matrix[:, self._measured_columns]
        return self._scaled(out, numbers, np.isnan(numbers))

    def _encode(self, table: Any, rows: int) -> np.ndarray:
        check_columns(table.keys(), self.signature)
        out = np.zeros((rows, self.width))
        for (name, place), column, _ in self._columns():
            if column.kind == "categorical":
                # -1 is the last slot: "was missing" where the column is nullable.
                out[:, place][np.arange(rows), category_codes(table[name], column)] = 1.0
        # All measured columns at once: a single row costs little more than its numbers.
        numbers = np.empty((rows, len(self._measured)))
        for position, column in enumerate(self._measured):
            numbers[:, position] = unchecked_numbers(table[column.name], column)
        missing = np.isnan(numbers)
        self._check(table, numbers, missing)
        return self._scaled(out, numbers, missing)

    def _scaled(self, out: np.ndarray, numbers: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """``out`` with the measured columns filled in."""
        with np.errstate(over="ignore"):
            scaled = (numbers - self._means) / self._stds
        scaled[missing] = 0.0
        self._refuse_absurd(scaled, numbers)
        out[:, self._value_places] = scaled
        out[:, self._missing_places] = missing[:, self._nullable]
        return out

    def _check(self, table: Any, numbers: np.ndarray, missing: np.ndarray) -> None:
        odd = self._boolean & ~missing & (numbers != 0) & (numbers != 1)
        if (odd | np.isinf(numbers) | (missing & ~self._nullable)).any():
            for position, column in enumerate(self._measured):
                check_numbers(table[column.name], numbers[:, position], column)

    def _refuse_absurd(self, scaled: np.ndarray, numbers: np.ndarray) -> None:
        absurd = np.abs(scaled) > _ABSURD
        if absurd.any():
            row, position = np.argwhere(absurd)[0]
            name = self._measured[position].name
            raise InvalidInputError(
                f"{name!r} is {numbers[row, position]:g}, too far from its mean of "
                f"{self._means[position]:g} for a network to compute with; correct the value.",
                field=name,
            )


def _mean_and_std(aggregate: ColumnStatistics) -> tuple[float, float]:
    """What to subtract and what to divide by; 1 where the column does not vary."""
    if aggregate.mean is None or aggregate.variance is None:
        return 0.0, 1.0
    std = math.sqrt(aggregate.variance)
    return aggregate.mean, std if std > _CONSTANT * abs(aggregate.mean) else 1.0
