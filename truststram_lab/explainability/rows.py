"""Tables of any kind as players of a game: check them, hash them, and mix their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truststram_lab.exceptions import InvalidInputError

from .interfaces import Floats

__all__ = ["Rows", "is_frame", "read_rows"]

Indices = NDArray[np.integer]


def is_frame(data: Any) -> bool:
    """Whether it is a DataFrame; pandas is not loaded for asking."""
    return hasattr(data, "iloc") and hasattr(data, "columns")


@dataclass(frozen=True)
class Rows:
    """Rows with named columns: numbers, or a DataFrame of any column types.

    Args:
        names: one a column.
        numbers: float64 (n, columns); None where a column is not a float.
        frame: the DataFrame that a model expects; None where it takes arrays.
    """

    names: tuple[str, ...]
    numbers: Floats | None
    frame: Any = None

    def __len__(self) -> int:
        return len(self.frame) if self.numbers is None else len(self.numbers)

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.names)

    def take(self, index: slice | Indices) -> Rows:
        """These rows, in this order."""
        return Rows(
            self.names,
            None if self.numbers is None else self.numbers[index],
            None if self.frame is None else self.frame.iloc[index],
        )

    def native(self) -> Any:
        """What the model is called with."""
        return self.numbers if self.frame is None else self.frame

    def matrix(self) -> Floats:
        """All columns as float64, missing ones as NaN.

        Raises:
            InvalidInputError: a column is text or a category, by its name.
        """
        if self.numbers is not None:
            return self.numbers
        columns = []
        for position, name in enumerate(self.names):
            column = self.frame.iloc[:, position]
            if column.dtype.kind not in "biuf":
                raise InvalidInputError(
                    f"Column {name!r} is {column.dtype}, not a number, and this method takes "
                    "numbers alone; use method='exact' or method='permutation'.",
                    field=name,
                )
            columns.append(column.to_numpy(dtype=np.float64, na_value=np.nan))
        return np.column_stack(columns) if columns else np.empty((len(self), 0))

    def mix(self, other: Rows, mine: Indices, others: Indices, keep: NDArray[np.bool_]) -> Rows:
        """Points that are these rows where ``keep`` and the other's elsewhere.

        Args:
            other: rows with the same columns.
            mine: (m,) rows of this table; ``others``: (m,) rows of the other.
            keep: (m, columns).
        """
        if self.numbers is not None and other.numbers is not None:
            numbers = np.where(keep, self.numbers[mine], other.numbers[others])
            return Rows(self.names, numbers, self._framed(numbers))
        import pandas as pd

        mixed = {}
        for position in range(self.width):
            pool = pd.concat(
                [self.frame.iloc[:, position], other.frame.iloc[:, position]], ignore_index=True
            )
            index = np.where(keep[:, position], mine, len(self) + others)
            mixed[position] = pool.array.take(index)
        frame = pd.DataFrame(mixed, copy=False)
        frame.columns = self.frame.columns
        return Rows(self.names, None, frame)

    def values_shown(self) -> list[list[Any]]:
        """Each row as Python scalars; missing ones are None."""
        if self.numbers is not None:
            return [
                [None if value != value else value for value in row]
                for row in self.numbers.tolist()
            ]
        plain = self.frame.astype(object)
        rows = plain.where(plain.notna(), None).to_numpy().tolist()
        return [[v.item() if isinstance(v, np.generic) else v for v in row] for row in rows]

    def sha256(self) -> str:
        """The hash of names, types and values."""
        digest = hashlib.sha256(repr(self.names).encode())
        if self.numbers is not None:
            digest.update(np.ascontiguousarray(self.numbers).tobytes())
        else:
            import pandas as pd

            digest.update(repr([str(kind) for kind in self.frame.dtypes]).encode())
            hashes = pd.util.hash_pandas_object(self.frame, index=False)
            digest.update(hashes.to_numpy().tobytes())
        return digest.hexdigest()

    def _framed(self, numbers: Floats) -> Any:
        if self.frame is None:
            return None
        import pandas as pd

        return pd.DataFrame(numbers, columns=self.frame.columns)


def read_rows(
    data: Any, names: Sequence[str] | None, *, framed: bool, what: str, like: Rows | None = None
) -> Rows:
    """``data`` as rows: a DataFrame, an array of any numeric type, a tensor, or one row.

    Args:
        names: expected column names; None: the frame's, else f0, f1, ...
        framed: hand the model a DataFrame even where ``data`` is an array.
        what: how messages name the data.
        like: rows whose columns these must have.

    Raises:
        InvalidInputError: the columns do not match, or an array holds no numbers.
    """
    if like is not None:
        names = like.names
    if like is not None and like.frame is not None and _is_series(data):
        # One row of a table of mixed types is a Series of objects.
        data = data.to_frame().T.set_axis(data.index.astype(str), axis=1)
        kinds = dict(zip(like.names, like.frame.dtypes, strict=True))
        data = data.astype({name: kinds[name] for name in data.columns if name in kinds})
    if is_frame(data):
        return _read_frame(data, names, framed, what, like)
    numbers = _read_numbers(data, what)
    if names is not None and numbers.shape[1] != len(names):
        raise InvalidInputError(
            f"{what} has {numbers.shape[1]} columns and {len(names)} are expected: "
            f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}.",
            field=what,
        )
    found = tuple(names) if names is not None else _numbered(numbers.shape[1])
    if like is not None and like.numbers is None:
        raise InvalidInputError(
            f"{what} is an array, but the background has columns that are no floats; pass a "
            f"DataFrame with the columns {', '.join(found[:20])}.",
            field=what,
        )
    rows = Rows(found, numbers)
    if framed or (like is not None and like.frame is not None):
        import pandas as pd

        columns = like.frame.columns if like is not None and like.frame is not None else found
        return Rows(found, numbers, pd.DataFrame(numbers, columns=columns))
    return rows


def _is_series(data: Any) -> bool:
    return hasattr(data, "to_frame") and hasattr(data, "index") and not is_frame(data)


def _numbered(width: int) -> tuple[str, ...]:
    return tuple(f"f{position}" for position in range(width))


def _read_frame(
    data: Any, names: Sequence[str] | None, framed: bool, what: str, like: Rows | None
) -> Rows:
    own = [str(name) for name in data.columns]
    if names is not None and own != list(names):
        if sorted(own) == sorted(names) and len(set(own)) == len(own):
            data = data.iloc[:, [own.index(name) for name in names]]
        elif like is None and len(own) == len(names):
            pass  # names to show in place of the frame's own
        else:
            raise InvalidInputError(_mismatch(own, list(names), what), field=what)
    shown = tuple(names) if names is not None else tuple(own)
    floats = all(isinstance(t, np.dtype) and t.kind == "f" for t in data.dtypes)
    numeric = all(isinstance(t, np.dtype) and t.kind in "biuf" for t in data.dtypes)
    as_array = not framed if like is None else like.frame is None
    if numeric and as_array:
        return Rows(shown, np.array(data, dtype=np.float64).reshape(len(data), len(shown)))
    if like is not None:
        floats = like.numbers is not None
        if not numeric and floats:
            bad = next(n for n, t in zip(own, data.dtypes, strict=True) if t.kind not in "biuf")
            raise InvalidInputError(
                f"Column {bad!r} of {what} is no number, but it is one in the background.",
                field=bad,
            )
    frame = data.reset_index(drop=True)
    return Rows(shown, np.array(frame, dtype=np.float64) if floats else None, frame)


def _mismatch(own: list[str], names: list[str], what: str) -> str:
    missing = [name for name in names if name not in own]
    extra = [name for name in own if name not in names]
    parts = []
    if missing:
        parts.append(f"lacks {', '.join(map(repr, missing[:10]))}")
    if extra:
        parts.append(f"has the unknown {', '.join(map(repr, extra[:10]))}")
    if not parts:
        parts.append(f"has {len(own)} columns instead of {len(names)}, or a name twice")
    return f"{what} {' and '.join(parts)}; it needs the columns {', '.join(names[:20])}."


def _read_numbers(data: Any, what: str) -> Floats:
    if hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    elif _is_series(data):
        data = data.to_numpy()  # one row
    elif hasattr(data, "toarray"):
        data = data.toarray()
    try:
        numbers = np.array(data, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"{what} holds values that are no numbers; pass them as a DataFrame, so that every "
            "column keeps its type.",
            field=what,
        ) from None
    if numbers.ndim == 1:
        numbers = numbers[None]
    if numbers.ndim != 2:
        raise InvalidInputError(
            f"{what} has {numbers.ndim} dimensions; one row has 1, a table 2.", field=what
        )
    return numbers
