"""A client's own CSV file: its target, its numbers, its part held out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from truststram_lab.exceptions import InvalidInputError, nearest

__all__ = ["LocalTable", "read_csv_table"]

_TARGETS = ("target", "label")
#: Every fifth row is held out for evaluation.
_HOLD_OUT = 5


@dataclass(frozen=True, eq=False)
class LocalTable:
    """Rows of numbers, scaled by the mean and deviation of this table's own training rows.

    ``target`` is the column that was taken, ``classes`` how many there are.
    """

    columns: tuple[str, ...]
    target: str
    classes: int
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    x_held_out: np.ndarray = field(repr=False)
    y_held_out: np.ndarray = field(repr=False)


def read_csv_table(path: str | Path, target_col: str | None = None) -> LocalTable:
    """Read a CSV file with a header line.

    Args:
        target_col: the column to predict; by default ``target``, else ``label``, else the last.

    Raises:
        InvalidInputError: there is no such file, it is no CSV, the target is not among its
            columns, a column holds no numbers, or the target is not 0 to k - 1 (or -1 and 1).
    """
    import pandas as pd

    file = Path(path).expanduser()
    if not file.is_file():
        near = [entry.name for entry in file.parent.glob("*.csv")] if file.parent.is_dir() else []
        close = nearest(file.name, near, most=1)
        hint = f"did you mean {close[0]!r}?" if close else "give the path of a CSV file."
        raise InvalidInputError(f"There is no file {str(path)!r}; {hint}", field="data_path")
    try:
        frame = pd.read_csv(file)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are ValueErrors
        raise InvalidInputError(
            f"{str(path)!r} is no CSV file with a header line; save it as one.", field="data_path"
        ) from error
    columns = [str(name) for name in frame.columns]
    frame.columns = pd.Index(columns)
    target = _target(columns, target_col, str(path))
    features = [name for name in columns if name != target]
    if len(frame) < _HOLD_OUT or not features:
        raise InvalidInputError(
            f"{str(path)!r} has {len(frame)} rows and {len(features)} columns besides the target; "
            f"give at least {_HOLD_OUT} rows and one column.",
            field="data_path",
        )
    x = np.column_stack([_numbers(frame[name], name) for name in features])
    y, classes = _codes(frame[target].to_numpy(), target)
    held = np.arange(len(frame)) % _HOLD_OUT == _HOLD_OUT - 1
    mean, deviation = x[~held].mean(0), x[~held].std(0)
    x = ((x - mean) / np.where(deviation > 0, deviation, 1.0)).astype(np.float32)
    return LocalTable(tuple(features), target, classes, x[~held], y[~held], x[held], y[held])


def _target(columns: list[str], wanted: str | None, path: str) -> str:
    if wanted is not None:
        if wanted not in columns:
            close = nearest(wanted, columns, most=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InvalidInputError(
                f"{path!r} has no column {wanted!r}; {hint}Its columns are {', '.join(columns)}.",
                field="target_col",
                choices=close,
            )
        return wanted
    return next((name for name in _TARGETS if name in columns), columns[-1])


def _numbers(column: object, name: str) -> np.ndarray:
    values = np.asarray(column)
    if values.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"Column {name!r} holds no numbers; encode it in the file, or leave it out.",
            field=name,
        )
    found = values.astype(np.float64)
    missing = int((~np.isfinite(found)).sum())
    if missing:
        raise InvalidInputError(
            f"Column {name!r} has {missing} values that are missing or not finite; fill them in, "
            "or leave the rows out.",
            field=name,
        )
    return found


def _codes(values: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Class places, the same at every site: labels that need no look at other sites' rows."""
    if values.dtype.kind in "biuf" and np.isfinite(values.astype(np.float64)).all():
        known = set(np.unique(values.astype(np.float64)).tolist())
        if known <= {-1.0, 1.0} and -1.0 in known:
            return (values > 0).astype(np.int64), 2
        if all(value == int(value) and 0 <= value <= 999 for value in known):
            return values.astype(np.int64), max(2, int(max(known)) + 1)
    raise InvalidInputError(
        f"The target {name!r} must hold classes as whole numbers from 0, the same at every site "
        "(or -1 and 1); encode it in the file, or name another with target_col=.",
        field="target_col",
    )
