"""Columns as arrays: where missing values, labels and wrong types are understood, once.

A column is a pandas Series (never imported here, only recognised by what it can do) or any
sequence of Python values. Federated statistics, the encoder and the labels all read their
values through these functions, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, Protocol

import numpy as np

from ..exceptions import InvalidInputError, nearest
from ..schemas.tables import Column

__all__ = [
    "Described",
    "Table",
    "category_codes",
    "check_columns",
    "check_numbers",
    "is_missing",
    "label_text",
    "numeric_values",
    "row_count",
    "row_label",
    "unchecked_numbers",
]


class Table(Protocol):
    """Columns by name: a data frame, or a dictionary of sequences of equal length."""

    def keys(self) -> Iterable[Any]: ...

    def __getitem__(self, name: str, /) -> Any: ...


class Described(Protocol):
    """The columns that rows must have and the one that they must not: a ``Signature``, say."""

    @property
    def columns(self) -> Sequence[Column]: ...
    @property
    def target(self) -> str: ...


def is_missing(value: object) -> bool:
    """True for None, NaN, ``pandas.NA`` and ``pandas.NaT``."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(value != value)
    return type(value).__name__ in ("NAType", "NaTType")


def label_text(value: object) -> str:
    """A label as text: whole numbers without a point, so that ``1``, ``1.0`` and "1" agree."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def row_count(table: Table) -> int:
    """Rows of a table; a data frame knows it even without columns."""
    index = getattr(table, "index", None)
    if index is not None:
        return len(index)
    lengths = {str(name): len(table[name]) for name in table.keys()}  # noqa: SIM118
    if len(set(lengths.values())) > 1:
        name = min(lengths, key=lambda name: lengths[name])
        raise InvalidInputError(
            f"Column {name!r} has {lengths[name]} values, others have up to "
            f"{max(lengths.values())}; give every column one value a row.",
            field=name,
        )
    return max(lengths.values(), default=0)


def check_columns(names: Iterable[object], signature: Described) -> None:
    """Refuse a table whose columns are not exactly the signature's, in any order.

    Raises:
        InvalidInputError: a column is missing, unknown or there twice; ``choices`` has the
            nearest known names.
    """
    known = [column.name for column in signature.columns]
    found = list(names)
    if len(found) == len(known) and set(found) == set(known):
        return
    for name in dict.fromkeys(found):
        if name not in known:
            raise InvalidInputError(
                _unknown_column(name, known, signature),
                field=str(name),
                choices=nearest(str(name), known),
            )
        if found.count(name) > 1:
            raise InvalidInputError(
                f"Column {name!r} is there {found.count(name)} times; "
                "keep one: df.loc[:, ~df.columns.duplicated()].",
                field=str(name),
            )
    missing = [name for name in known if name not in found]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InvalidInputError(
            f"Column {missing[0]!r} is missing{more}; the model takes {len(known)} columns.",
            field=missing[0],
            choices=missing,
        )


def _unknown_column(name: object, known: Sequence[str], signature: Described) -> str:
    if name == signature.target:
        return (
            f"{name!r} is what the model predicts, not an input; "
            f"leave it out: df.drop(columns=[{name!r}])."
        )
    close = nearest(str(name), known)
    if close:
        return f"{name!r} is not a column; did you mean {close[0]!r}?"
    return f"{name!r} is not a column of the model; leave it out: df.drop(columns=[{name!r}])."


def numeric_values(values: Any, column: Column) -> np.ndarray:
    """The values of a numeric or boolean column as float64, NaN where missing.

    Raises:
        InvalidInputError: a value is no number, is infinite, is neither 0 nor 1 in a boolean
            column, or is missing in a column that is not nullable; the message names column
            and row.
    """
    numbers = unchecked_numbers(values, column)
    check_numbers(values, numbers, column)
    return numbers


def unchecked_numbers(values: Any, column: Column) -> np.ndarray:
    """As ``numeric_values``, but only the types of the values are checked."""
    dtype_kind = getattr(getattr(values, "dtype", None), "kind", "O")
    if dtype_kind not in "biuf":
        return _numbers_of_objects(values, column)
    if hasattr(values, "to_numpy"):
        numbers: np.ndarray = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers
    return np.asarray(values, dtype=np.float64)


def check_numbers(values: Any, numbers: np.ndarray, column: Column) -> None:
    """The checks of ``numeric_values`` on what ``unchecked_numbers`` made of ``values``."""
    _refuse(
        values,
        np.isinf(numbers),
        column,
        lambda value: f"is infinite ({value}); replace it by a number or by a missing value",
    )
    if column.kind == "boolean":
        odd = ~np.isnan(numbers) & (numbers != 0) & (numbers != 1)
        _refuse(values, odd, column, lambda value: f"is {value!r}; use True or False")
    if not column.nullable:
        _refuse_missing(values, np.isnan(numbers), column)


def _numbers_of_objects(values: Any, column: Column) -> np.ndarray:
    numbers = np.empty(len(values), np.float64)
    for row, value in enumerate(values):
        if type(value) is float:  # the common case first: this loop serves predictions
            numbers[row] = value
        elif is_missing(value):
            numbers[row] = np.nan
        elif isinstance(value, Real | np.bool_):
            numbers[row] = _float(value)
        else:
            wanted = "True or False" if column.kind == "boolean" else "a number"
            raise InvalidInputError(
                f"Column {column.name!r} is {_short(value)} in row {row_label(values, row)!r}; "
                f"{wanted} is needed.",
                field=column.name,
            )
    return numbers


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        # An integer beyond the range of float64 is as useless as an infinite one.
        return float("inf")


def category_codes(values: Any, column: Column) -> np.ndarray:
    """The values of a categorical column as places in its categories, -1 where missing.

    Raises:
        InvalidInputError: a value is none of the categories (the message has the nearest),
            or is missing in a column that is not nullable.
    """
    place = {category: code for code, category in enumerate(column.categories)}
    if hasattr(values, "factorize"):
        groups, labels = values.factorize()
    else:
        groups, labels = _factorize(values)
    codes: np.ndarray = np.array(
        [place.get(label_text(label), -2) for label in labels] + [-1], np.int64
    )[groups]
    _refuse(values, codes == -2, column, lambda value: _unknown_category(value, column))
    if not column.nullable:
        _refuse_missing(values, codes == -1, column)
    return codes


def _factorize(values: Sequence[object]) -> tuple[np.ndarray, list[object]]:
    groups = np.empty(len(values), np.int64)
    places: dict[tuple[type, object], int] = {}
    for row, value in enumerate(values):
        # 1 and True are equal keys of a dictionary but different labels.
        key = (type(value), value)
        groups[row] = -1 if is_missing(value) else places.setdefault(key, len(places))
    return groups, [value for _, value in places]


def _unknown_category(value: object, column: Column) -> str:
    close = nearest(label_text(value), column.categories)
    if close:
        return f"is {_short(value)}, which is no category; did you mean {close[0]!r}?"
    few = ", ".join(map(repr, column.categories[:5]))
    dots = ", ..." if len(column.categories) > 5 else ""
    return f"is {_short(value)}, which is no category; the model knows {few}{dots}"


def _refuse_missing(values: Any, wrong: np.ndarray, column: Column) -> None:
    _refuse(
        values,
        wrong,
        column,
        lambda _: "is missing, which the model has not seen in training; give a value",
    )


def _refuse(values: Any, wrong: np.ndarray, column: Column, fact: Callable[[object], str]) -> None:
    if not wrong.any():
        return
    row = int(np.argmax(wrong))
    value = values.iloc[row] if hasattr(values, "iloc") else values[row]
    sentence = fact(value).rstrip(".")
    end = "" if sentence.endswith("?") else "."
    raise InvalidInputError(
        f"Column {column.name!r} in row {row_label(values, row)!r} {sentence}{end}",
        field=column.name,
    )


def row_label(values: Any, row: int) -> object:
    """What the person calls the row: the label of the index, else its place."""
    index = getattr(values, "index", None)
    if index is None or callable(index):  # a list has a method of that name
        return row
    label = index[row]
    return label.item() if isinstance(label, np.generic) else label


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
