"""From a data frame to a signature: what the columns are, and what cannot be used."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ..exceptions import InvalidInputError, nearest
from ..learning.columns import is_missing, label_text, numeric_values, row_label
from ..schemas.tables import Column, ColumnKind, Signature

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "fingerprint",
    "infer_classes",
    "infer_columns",
    "infer_signature",
    "is_measured",
    "target_codes",
]

#: More categories than this, and a column names its rows rather than describing them.
MAX_CATEGORIES = 100

_NUMBERS = ("integer", "floating", "mixed-integer-float")

#: As many columns as a sentence lists.
_SHOWN_COLUMNS = 40

#: More distinct numbers than this, and a target is measured rather than chosen.
MAX_NUMERIC_CLASSES = 50


def infer_signature(frame: pd.DataFrame, target: str, positive: object = None) -> Signature:
    """Describe the columns of ``frame`` and the classes of its column ``target``.

    Classes are texts: whole numbers without a point, sorted by value where all are numbers.
    Of two classes the positive one is ``positive``, else the last in that order; it stands
    last. A column is nullable when a value is missing in it.

    Raises:
        InvalidInputError: the target is unknown, constant, continuous or has missing values,
            or a column cannot be used; the message names it and says the way out.
    """
    _check_names(frame)
    _check_target_name(frame, target)
    if len(frame.columns) == 1:
        raise InvalidInputError(
            f"{target!r} is the only column; a model needs at least one other to predict from.",
            field="target",
        )
    classes = _classes(frame[target], target)
    positive_class = _positive_class(classes, target, positive)
    if positive_class is not None:
        # Last of the two: then its code is 1, which is what its log-odds are trained on.
        classes.sort(key=lambda label: label == positive_class)
    columns = [_column(frame[name], name) for name in frame.columns if name != target]
    return Signature(
        columns=columns,
        target=target,
        classes=classes,
        positive_class=positive_class,
    )


def infer_columns(frame: pd.DataFrame) -> list[Column]:
    """Describe every column of ``frame``, as ``infer_signature`` does.

    Raises:
        InvalidInputError: a column cannot be used; the message names it and says the way out.
    """
    _check_names(frame)
    return [_column(frame[name], name) for name in frame.columns]


def infer_classes(values: pd.Series, target: str) -> list[str]:
    """The classes of a target, in the order in which ``infer_signature`` has them."""
    return _classes(values, target)


def is_measured(values: pd.Series) -> bool:
    """Whether a target is a measured number (regression) rather than one of some classes."""
    import pandas as pd

    if values.dtype.kind in "mMc" or not len(values):
        return False
    if pd.api.types.infer_dtype(values, skipna=True) not in _NUMBERS:
        return False
    labels = values.dropna().unique()
    return _measured_by(np.asarray([float(label) for label in labels]), len(values)) is not None


def target_codes(frame: pd.DataFrame, signature: Signature) -> np.ndarray:
    """The class of every row as its place in ``signature.classes``: int64 (n,).

    Of two classes the positive one is 1, as training needs it.

    Raises:
        InvalidInputError: the target column is not there, a label is missing or is none of
            the classes, or the signature does not have its positive class last.
    """
    if signature.positive_class not in (None, signature.classes[-1]):
        raise InvalidInputError(
            f"The positive class {signature.positive_class!r} is not the last of "
            f"{_few(signature.classes)}; list it last to train with this signature.",
            field="positive_class",
        )
    _check_names(frame)
    _check_target_name(frame, signature.target)
    values = frame[signature.target]
    _refuse_missing_target(values, signature.target)
    groups, labels = values.factorize()
    place = {label: code for code, label in enumerate(signature.classes)}
    for label in labels:
        if label_text(label) not in place:
            close = nearest(label_text(label), signature.classes)
            raise InvalidInputError(
                f"{signature.target!r} is {label_text(label)!r} in some rows, which is none of the "
                f"classes {_few(signature.classes)}; correct or drop these rows.",
                field=signature.target,
                choices=close,
            )
    codes = np.array([place[label_text(label)] for label in labels], np.int64)
    result: np.ndarray = codes[groups] if len(groups) else np.empty(0, np.int64)
    return result


def _check_names(frame: pd.DataFrame) -> None:
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str):
            raise InvalidInputError(
                f"The column name {name!r} is of type {type(name).__name__}, not a text; "
                "rename the columns: df.columns = df.columns.map(str).",
                field="columns",
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(
            f"Column {twice!r} is there {names.count(twice)} times; "
            "keep one: df = df.loc[:, ~df.columns.duplicated()].",
            field=twice,
        )


def _check_target_name(frame: pd.DataFrame, target: str) -> None:
    if target in frame.columns:
        return
    close = nearest(str(target), frame.columns)
    meant = f"did you mean {close[0]!r}? The columns are " if close else "the columns are "
    shown = [repr(name) for name in frame.columns[:_SHOWN_COLUMNS]]
    more = len(frame.columns) - len(shown)
    raise InvalidInputError(
        f"There is no column {target!r} to predict; {meant}{', '.join(shown)}"
        f"{f' and {more} more' if more else ''}.",
        field="target",
        choices=close or [str(name) for name in frame.columns],
    )


def _refuse_missing_target(values: pd.Series, target: str) -> None:
    missing = int(values.isna().sum())
    if missing:
        raise InvalidInputError(
            f"The target {target!r} is missing in {missing} of {len(values)} rows; "
            f"drop them first: df = df.dropna(subset=[{target!r}]).",
            field="target",
        )


def _classes(values: pd.Series, target: str) -> list[str]:
    if len(values) == 0:
        raise InvalidInputError("The table has no rows; give at least a few per class.")
    if values.dtype.kind in "mMc":
        raise _regression(target, f"holds values of type {values.dtype}")
    _refuse_missing_target(values, target)
    kind = _kind(values, target)
    labels = list(values.unique())
    if kind == "numeric":
        _check_numeric_target(labels, len(values), target)
    classes = list({label_text(label): None for label in labels})
    if len(classes) < 2:
        raise InvalidInputError(
            f"The target {target!r} is {classes[0]!r} in all {len(values)} rows, so there is "
            "nothing to tell apart; choose another target.",
            field="target",
        )
    if len(classes) > MAX_CATEGORIES:
        raise InvalidInputError(
            f"The target {target!r} has {len(classes)} different labels; up to "
            f"{MAX_CATEGORIES} classes can be told apart: group the rare ones, or choose another.",
            field="target",
        )
    return sorted(classes, key=_by_value(classes))


def _check_numeric_target(labels: list[Any], rows: int, target: str) -> None:
    numbers = np.asarray([float(label) for label in labels])
    if np.isinf(numbers).any():
        raise InvalidInputError(
            f"The target {target!r} has infinite values; correct or drop these rows.",
            field="target",
        )
    measured = _measured_by(numbers, rows)
    if measured is not None:
        raise _regression(target, measured)


def _measured_by(numbers: np.ndarray, rows: int) -> str | None:
    """What shows that different ``numbers`` in ``rows`` are measured; None: they are classes."""
    if (numbers != np.round(numbers)).any():
        odd = numbers[numbers != np.round(numbers)][0]
        return f"has fractional values such as {odd:g}"
    if len(numbers) > MAX_NUMERIC_CLASSES or (len(numbers) > 10 and len(numbers) > rows / 2):
        return f"has {len(numbers)} different numbers in {rows} rows"
    return None


def _regression(target: str, fact: str) -> InvalidInputError:
    return InvalidInputError(
        f"{target!r} {fact}, so this is a regression target, and models here tell classes apart; "
        f"cut it into classes first: df[{target!r}] = pd.qcut(df[{target!r}], 2, "
        'labels=["low", "high"]).',
        field="target",
    )


def _by_value(classes: list[str]) -> Any:
    # "10" comes after "9" where every label is a whole number.
    if all(re.fullmatch(r"-?\d{1,18}", label) for label in classes):
        return int
    return str


def _positive_class(classes: list[str], target: str, positive: object) -> str | None:
    if len(classes) == 2:
        if positive is None:
            return classes[-1]
        if label_text(positive) in classes:
            return label_text(positive)
    elif positive is None:
        return None
    if len(classes) > 2:
        raise InvalidInputError(
            f"{target!r} has {len(classes)} classes, so none of them is the positive one; "
            f"leave out positive={label_text(positive)!r}.",
            field="positive",
        )
    raise InvalidInputError(
        f"{label_text(positive)!r} is no class of {target!r}; "
        f"the positive class is {classes[0]!r} or {classes[1]!r}.",
        field="positive",
        choices=classes,
    )


def _column(values: pd.Series, name: str) -> Column:
    nullable = bool(values.isna().any())
    if bool(values.isna().all()):
        raise InvalidInputError(
            f"Column {name!r} has no value in any row; drop it: df.drop(columns=[{name!r}]).",
            field=name,
        )
    kind = _kind(values, name)
    if kind != "categorical":
        # Nullable Float64 tells NaN from missing; here both are missing.
        numbers = numeric_values(values, Column(name=name, kind=kind, nullable=True))
        return Column(name=name, kind=kind, nullable=bool(np.isnan(numbers).any()))
    labels = {label_text(label) for label in values.dropna().unique()}
    if len(labels) > MAX_CATEGORIES:
        raise InvalidInputError(
            f"Column {name!r} has {len(labels)} different values, so it looks like an identifier; "
            f"drop it: df.drop(columns=[{name!r}]).",
            field=name,
        )
    return Column(name=name, kind="categorical", nullable=nullable, categories=sorted(labels))


def _kind(values: pd.Series, name: str) -> ColumnKind:
    dtype_kind = values.dtype.kind
    if dtype_kind == "b":
        return "boolean"
    if dtype_kind in "iuf":
        return "numeric"
    if dtype_kind == "M":
        raise InvalidInputError(
            f"Column {name!r} holds points in time; drop it, or turn it into a number such as "
            f"df[{name!r}].dt.year.",
            field=name,
        )
    if dtype_kind == "m":
        raise InvalidInputError(
            f"Column {name!r} holds durations; turn it into a number: "
            f"df[{name!r}] = df[{name!r}].dt.total_seconds().",
            field=name,
        )
    if dtype_kind == "O":
        return _kind_of_objects(values, name)
    raise _unusable(values, name, str(values.dtype), 0)


def _kind_of_objects(values: pd.Series, name: str) -> ColumnKind:
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        return "categorical"
    found = pd.api.types.infer_dtype(values, skipna=True)
    if found == "string":
        return "categorical"
    if found == "boolean":
        return "boolean"
    if found in _NUMBERS:
        return "numeric"
    for row, value in enumerate(values):
        if not is_missing(value) and not isinstance(value, str):
            raise _unusable(values, name, f"{value!r:.60} of type {type(value).__name__}", row)
    raise _unusable(values, name, found, 0)


def _unusable(values: pd.Series, name: str, what: str, row: int) -> InvalidInputError:
    return InvalidInputError(
        f"Column {name!r} has {what} in row {row_label(values, row)!r}; a column holds only "
        f"numbers, only booleans or only texts: convert it, as in df[{name!r}].astype(str), or "
        "drop it.",
        field=name,
    )


def _few(names: Any) -> str:
    shown = ", ".join(repr(str(name)) for name in list(names)[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def fingerprint(frame: pd.DataFrame) -> str:
    """The sha256 of the frame's names, types and values, as 64 hexadecimal digits.

    The index does not count. Equal frames give equal fingerprints in every process.
    """
    digest = hashlib.sha256()
    for position, name in enumerate(frame.columns):
        values = frame.iloc[:, position]
        head = json.dumps([str(name), str(values.dtype), len(values)])
        digest.update(len(head).to_bytes(8, "little") + head.encode())
        for part in _content(values):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _content(values: pd.Series) -> list[bytes]:
    missing = values.isna().to_numpy(dtype=bool)
    if values.dtype.kind in "biuf":
        # Integers beyond 2**53 are not floats; they keep their own type.
        wide = {"f": "<f8", "u": "<u8"}.get(values.dtype.kind, "<i8")
        return [missing.tobytes(), values.to_numpy(dtype=wide, na_value=0).tobytes()]
    groups, labels = values.factorize()
    texts = [f"{type(label).__name__}:{label}" for label in labels]
    return [np.asarray(groups, "<i8").tobytes(), json.dumps(texts).encode()]
