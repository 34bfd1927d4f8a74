"""``DataProcessor``: a mixed table into the numbers that scikit-learn's models take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ..exceptions import ConflictError, InvalidInputError, nearest
from ..learning.columns import (
    category_codes,
    check_columns,
    is_missing,
    label_text,
    numeric_values,
)
from ..learning.statistics import local_moments, merge_moments
from ..schemas.tables import Column, Signature, Statistics
from .inference import infer_classes, infer_columns, infer_signature, is_measured, target_codes

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "TASKS",
    "ClassCodes",
    "DataProcessor",
    "ProcessedArray",
    "Task",
    "check_task",
    "label_array",
    "read_target",
]

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = ("classification", "regression")


def check_task(task: str | None) -> None:
    """Refuse a task that is neither None nor one of ``TASKS``."""
    if task is not None and task not in TASKS:
        raise InvalidInputError(
            f"task={task!r} is unknown; use 'classification' or 'regression', or leave it out to "
            "let the target decide.",
            field="task",
            choices=nearest(str(task), TASKS) or list(TASKS),
        )


def read_target(values: pd.Series, task: Task | None) -> tuple[Task, ClassCodes | np.ndarray]:
    """A target as codes of its classes, or as the float64 numbers of a regression.

    Args:
        task: None: the values decide.

    Raises:
        InvalidInputError: a value is missing, or the target does not fit the task.
    """
    target = str(values.name)
    if (task or ("regression" if is_measured(values) else "classification")) == "regression":
        return "regression", numeric_values(values, Column(name=target, kind="numeric"))
    texts = infer_classes(values, target)
    positive = texts[-1] if len(texts) == 2 else None
    described = Signature(columns=[], target=target, classes=texts, positive_class=positive)
    codes = target_codes(values.to_frame(), described)
    return "classification", ClassCodes(codes, _labels(values, texts))


class ProcessedArray(np.ndarray):
    """Float64 rows that know their columns and what made them.

    Choosing rows, as in ``X[:100]``, keeps both; choosing columns keeps the names alone;
    anything computed from the array has neither (``feature_names`` is None), for they would
    no longer be true.
    """

    feature_names: list[str] | None
    processor: DataProcessor | None

    def __new__(
        cls, values: np.ndarray, feature_names: Sequence[str], processor: DataProcessor | None
    ) -> Self:
        made = np.asarray(values).view(cls)
        made.feature_names, made.processor = list(feature_names), processor
        return made

    def __array_finalize__(self, source: Any) -> None:
        self.feature_names = self.processor = None

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if not isinstance(found, ProcessedArray):
            return found
        if found.ndim != 2 or self.feature_names is None:
            return found.view(np.ndarray)
        rows, columns = _two_keys(key)
        if np.ndim(rows) > 1 or isinstance(columns, int):
            return found.view(np.ndarray)
        if isinstance(columns, slice) and columns == slice(None):
            return ProcessedArray(found, self.feature_names, self.processor)
        names = np.array(self.feature_names, dtype=object)[columns]
        if names.shape != found.shape[1:]:
            return found.view(np.ndarray)
        return ProcessedArray(found, names.tolist(), None)

    def copy(self, order: Any = "C") -> Any:
        """A copy of the values, with the same names and processor."""
        copied = super().copy(order)
        copied.feature_names, copied.processor = self.feature_names, self.processor
        return copied


def _two_keys(key: Any) -> tuple[Any, Any]:
    """An index of a table as what it does to the rows and to the columns."""
    if not isinstance(key, tuple):
        return key, slice(None)
    parts = [part for part in key if part is not Ellipsis]
    if len(parts) == 2:
        return parts[0], parts[1]
    if len(parts) == 1:
        # [..., columns] or [rows, ...]
        return (slice(None), parts[0]) if key[0] is Ellipsis else (parts[0], slice(None))
    return slice(None), slice(None)


class ClassCodes(np.ndarray):
    """Int64 codes of rows that know their ``classes``; choosing rows keeps these."""

    classes: np.ndarray | None

    def __new__(cls, codes: np.ndarray, classes: np.ndarray) -> Self:
        made = np.asarray(codes, np.int64).view(cls)
        made.classes = classes
        return made

    def __array_finalize__(self, source: Any) -> None:
        self.classes = None

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, ClassCodes):
            found.classes = self.classes
        return found

    def copy(self, order: Any = "C") -> Any:
        """A copy of the codes, with the same classes."""
        copied = super().copy(order)
        copied.classes = self.classes
        return copied

    def labels(self) -> np.ndarray:
        """The labels that the codes stand for."""
        if self.classes is None:
            raise ConflictError("These codes were computed with, so their classes are not known.")
        found: np.ndarray = self.classes[np.asarray(self)]
        return found


class DataProcessor:
    """Learns a table's columns once, and applies exactly the same to every later table.

    Numbers: missing ones become the median, then ``(x - mean) / std``. Booleans: missing ones
    become the most frequent. Texts and categories: a 0/1 number a category. A column in which
    values were missing has one more 0/1 number, ``NAME is missing``.

    Args:
        task: ``classification`` or ``regression``; None: the target decides.
    """

    def __init__(self, *, task: Task | None = None) -> None:
        check_task(task)
        self._asked = task
        self._columns: list[Column] | None = None
        self._transformer: Any = None
        self._names: list[str] = []
        self.target = "target"
        #: ``classification`` or ``regression``; None before ``fit_transform``
        self.task: Task | None = task
        #: the labels in the order of their codes; None for a regression
        self.classes: np.ndarray | None = None
        #: what the platform knows a table by; None for a regression, which it does not serve
        self.signature: Signature | None = None
        self.statistics: Statistics | None = None

    @property
    def columns(self) -> list[Column]:
        """The columns that a table must have, in order."""
        if self._columns is None:
            raise ConflictError(
                "This DataProcessor has not seen a table; call fit_transform(X, y) first."
            )
        return self._columns

    def fit_transform(
        self, X: pd.DataFrame, y: Any
    ) -> tuple[ProcessedArray, ClassCodes | np.ndarray]:
        """Learn from a table and its target; both as numbers.

        Returns:
            float64 (n, features), and int64 codes of the classes or float64 values (n,).

        Raises:
            InvalidInputError: a column or the target cannot be used; one sentence with the
                column's name. Nothing of the processor changes then.
        """
        _check_frame(X)
        values = _target(X, y)
        target = str(values.name)
        task, found = read_target(values, self._asked)
        columns = infer_columns(X)
        signature = statistics = classes = None
        if isinstance(found, ClassCodes):
            signature = infer_signature(X.assign(**{target: values}), target)
            classes = found.classes
            statistics = merge_moments([local_moments(X, signature)], signature)
        transformer = _transformer(columns)
        matrix = transformer.fit_transform(_matrix(X, columns))
        self._columns, self._transformer, self._names = columns, transformer, _names(columns)
        self.target, self.task, self.classes = target, task, classes
        self.signature, self.statistics = signature, statistics
        return ProcessedArray(matrix, self._names, self), found

    def transform(self, X: pd.DataFrame | Sequence[Mapping[str, Any]]) -> ProcessedArray:
        """A table (or rows by column name) as float64 (n, features), as in training.

        Raises:
            InvalidInputError: a column is missing or unknown, or a value is of a category that
                training did not have; one sentence with the column's name.
            ConflictError: there was no ``fit_transform``.
        """
        columns = self.columns
        table: Any = X
        if not hasattr(X, "iloc"):
            rows = list(X) if isinstance(X, Sequence) and not isinstance(X, str) else [None]
            if not rows or not all(isinstance(row, Mapping) for row in rows):
                _check_frame(X)
            for row in rows:
                check_columns(row.keys(), self)
            table = {column.name: [row[column.name] for row in rows] for column in columns}
        check_columns(table.keys(), self)
        matrix = self._transformer.transform(_matrix(table, columns))
        return ProcessedArray(matrix, self._names, self)

    def get_feature_names_out(self) -> np.ndarray:
        """The name of every number of a row, in order."""
        self.columns  # noqa: B018  refuses before fit_transform
        return np.array(self._names, dtype=object)

    def __repr__(self) -> str:
        if self._columns is None:
            return "DataProcessor()"
        return (
            f"DataProcessor: {len(self._columns)} columns as {len(self._names)} numbers, "
            f"{self.task} of {self.target!r}"
        )

    def to_state(self) -> dict[str, Any]:
        """All of it as plain values and scikit-learn's transformer, for ``from_state``."""
        return {
            "columns": [column.model_dump_json() for column in self.columns],
            "target": self.target,
            "task": self.task,
            "classes": None if self.classes is None else self.classes.tolist(),
            "signature": None if self.signature is None else self.signature.model_dump_json(),
            "statistics": None if self.statistics is None else self.statistics.model_dump_json(),
            "transformer": self._transformer,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DataProcessor:
        """The processor that ``to_state`` was called on."""
        made = cls(task=state["task"])
        made._columns = [Column.model_validate_json(text) for text in state["columns"]]
        made._names = _names(made._columns)
        made._transformer, made.target = state["transformer"], state["target"]
        if state["classes"] is not None:
            made.classes = label_array(state["classes"])
            made.signature = Signature.model_validate_json(state["signature"])
            made.statistics = Statistics.model_validate_json(state["statistics"])
        return made


def _check_frame(X: Any) -> None:
    if not (hasattr(X, "iloc") and hasattr(X, "columns")):
        raise InvalidInputError(
            f"A DataProcessor takes a DataFrame, not a {type(X).__name__}; name the columns: "
            "pd.DataFrame(X, columns=[...]).",
            field="X",
        )
    if not len(X.columns):
        raise InvalidInputError("The table has no columns; give at least one.", field="X")


def _target(X: pd.DataFrame, y: Any) -> pd.Series:
    """The target as a Series with the table's index, under a name that no column has."""
    import pandas as pd

    values = y if isinstance(y, pd.Series) else pd.Series(np.asarray(y).ravel())
    if len(values) != len(X):
        raise InvalidInputError(
            f"The table has {len(X)} rows and the target {len(values)}; give one value a row.",
            field="y",
        )
    name = values.name if isinstance(values.name, str) else "target"
    if name in X.columns:
        if isinstance(y, pd.Series) and y.equals(X[name]):
            raise InvalidInputError(
                f"{name!r} is what the model predicts, not an input; leave it out: "
                f"df.drop(columns=[{name!r}]).",
                field=name,
            )
        name = next(f"target {k}" for k in range(len(X.columns) + 1) if f"target {k}" not in X)
    return values.set_axis(X.index).rename(name)


def _labels(values: pd.Series, texts: Sequence[str]) -> np.ndarray:
    """The target's own labels in the order of their texts."""
    own: dict[str, Any] = {}
    for label in values.unique():
        if not is_missing(label):
            own.setdefault(label_text(label), label)
    return label_array([own[text] for text in texts])


def label_array(labels: Sequence[Any]) -> np.ndarray:
    """Labels as an array of their own type; of different types: objects."""
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    kinds = {type(label) for label in plain}
    return np.array(plain, dtype=None if len(kinds) == 1 else object)


def _matrix(table: Any, columns: Sequence[Column]) -> np.ndarray:
    """Checked values as float64 (n, columns): numbers with NaN, categories as codes.

    A missing category has the code after the last.
    """
    parts = []
    for column in columns:
        if column.kind == "categorical":
            codes = category_codes(table[column.name], column)
            parts.append(np.where(codes < 0, len(column.categories), codes).astype(np.float64))
        else:
            parts.append(numeric_values(table[column.name], column))
    return np.column_stack(parts)


def _places(columns: Sequence[Column], kind: str, *, nullable: bool = False) -> list[int]:
    return [
        place
        for place, column in enumerate(columns)
        if column.kind == kind and (column.nullable or not nullable)
    ]


def _codes(column: Column) -> np.ndarray:
    return np.arange(len(column.categories) + column.nullable, dtype=np.float64)


def _transformer(columns: Sequence[Column]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categorical = _places(columns, "categorical")
    gaps = _gaps(columns)
    numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    onehot = OneHotEncoder(
        categories=[_codes(columns[place]) for place in categorical], sparse_output=False
    )
    parts = [
        ("numeric", numeric, _places(columns, "numeric")),
        ("boolean", SimpleImputer(strategy="most_frequent"), _places(columns, "boolean")),
        ("missing", MissingIndicator(features="all"), gaps),
        ("categorical", onehot, categorical),
    ]
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0.0)


def _gaps(columns: Sequence[Column]) -> list[int]:
    return _places(columns, "numeric", nullable=True) + _places(columns, "boolean", nullable=True)


def _names(columns: Sequence[Column]) -> list[str]:
    """Names in the transformer's order: numbers, booleans, gaps, categories."""
    measured = _places(columns, "numeric") + _places(columns, "boolean")
    names = [columns[place].name for place in measured]
    names += [f"{columns[place].name} is missing" for place in _gaps(columns)]
    for place in _places(columns, "categorical"):
        column = columns[place]
        names += [f"{column.name}={category}" for category in column.categories]
        names += [f"{column.name} is missing"] * column.nullable
    return names
