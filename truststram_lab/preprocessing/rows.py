"""One row of a prediction request, checked before it reaches a model. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from ..exceptions import InvalidInputError, nearest
from ..learning.columns import check_columns, is_missing
from ..schemas.serving import Scalar
from ..schemas.tables import Column, Signature

__all__ = ["flat_row", "validate_row"]

#: Levels of nesting that a row may have; deeper is no row of a table.
_MOST_LEVELS = 10


def flat_row(row: Mapping[str, Any], signature: Signature) -> Mapping[str, Any]:
    """The row with its nested objects as columns: ``user.age`` for ``{"user": {"age": 71}}``.

    A column of that very name is left to its own check. A flat row is returned as it is.

    Raises:
        InvalidInputError: two values have one name, an object is empty, or there are too many
            levels.
    """
    if not any(isinstance(value, Mapping) for value in row.values()):
        return row
    own = {column.name for column in signature.columns}
    flat: dict[str, Any] = {}
    for name, value in _leaves(row, own, "", _MOST_LEVELS):
        if name in flat:
            raise InvalidInputError(
                f"{name!r} comes twice, once with a dot in its name and once nested; give it once.",
                field=name,
            )
        flat[name] = value
    return flat


def _leaves(
    row: Mapping[str, Any], own: set[str], prefix: str, levels: int
) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{prefix}{key}"
        if not isinstance(value, Mapping) or name in own:
            yield name, value
            continue
        if not value or levels <= 1:
            fact = "an empty object" if not value else f"nested deeper than {_MOST_LEVELS} levels"
            raise InvalidInputError(
                f"{name!r} is {fact}; give the columns themselves, for example "
                f"{next((column for column in sorted(own) if column.startswith(name)), name)!r}.",
                field=name,
            )
        yield from _leaves(value, own, f"{name}.", levels - 1)


def validate_row(row: Mapping[str, Any], signature: Signature) -> dict[str, Scalar]:
    """The row as plain Python values, in the signature's order of columns.

    Nested objects are columns with dots in their names, see ``flat_row``.
    A missing value is None; it is legal only in a nullable column. Numbers are finite;
    a boolean column takes true, false, 0 and 1; a category is given as its text.

    Raises:
        InvalidInputError: a column is missing or unknown, or a value is of the wrong type,
            not finite, missing or no known category. ``field`` is the column, ``choices``
            the nearest valid names or values.
    """
    row = flat_row(row, signature)
    check_columns(row.keys(), signature)
    return {column.name: _value(row[column.name], column) for column in signature.columns}


def _value(value: object, column: Column) -> Scalar:
    # The common case first: asking whether something is a Real costs more than all of this.
    if type(value) is float and column.kind == "numeric" and math.isfinite(value):
        return value
    if isinstance(value, Real) and not isinstance(value, Integral):
        _refuse_not_finite(float(value), column)
    if is_missing(value):
        if column.nullable:
            return None
        raise InvalidInputError(
            f"{column.name!r} has no value, which the model has not seen in training; "
            f"give {_wanted(column)}.",
            field=column.name,
        )
    if column.kind == "categorical":
        return _category(value, column)
    if column.kind == "boolean":
        return _boolean(value, column)
    return _number(value, column)


def _refuse_not_finite(number: float, column: Column) -> None:
    if not math.isfinite(number):
        way_out = (
            "a finite number, or null where it is missing"
            if column.nullable
            else ("a finite number")
        )
        raise InvalidInputError(
            f"{column.name!r} is {number}, which is no measurement; give {way_out}.",
            field=column.name,
        )


def _number(value: object, column: Column) -> Scalar:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _wrong_type(value, column)
    if isinstance(value, Integral):
        try:
            float(value)
        except OverflowError:
            _refuse_not_finite(math.inf, column)
        return int(value)
    return float(value)


def _boolean(value: object, column: Column) -> Scalar:
    # numpy's booleans are no numbers; they compare equal to Python's.
    if isinstance(value, Real) or type(value).__name__ in ("bool", "bool_"):
        for flag in (False, True):
            if value == flag:
                return flag
    raise _wrong_type(value, column)


def _category(value: object, column: Column) -> Scalar:
    if not isinstance(value, str):
        raise _wrong_type(value, column)
    if value not in column.categories:
        close = nearest(value, column.categories)
        few = ", ".join(map(repr, column.categories[:5]))
        dots = ", ..." if len(column.categories) > 5 else ""
        hint = f"did you mean {close[0]!r}?" if close else f"the model knows {few}{dots}."
        raise InvalidInputError(
            f"{column.name!r} is {_short(value)}, which is no category; {hint}",
            field=column.name,
            choices=close or column.categories[:5],
        )
    return value


def _wrong_type(value: object, column: Column) -> InvalidInputError:
    return InvalidInputError(
        f"{column.name!r} is {_short(value)}, of type {type(value).__name__}; "
        f"give {_wanted(column)}.",
        field=column.name,
        choices=column.categories[:5] if column.kind == "categorical" else None,
    )


def _wanted(column: Column) -> str:
    if column.kind == "categorical":
        return f"a text such as {column.categories[0]!r}" if column.categories else "a text"
    return "true or false" if column.kind == "boolean" else "a number"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
