"""``MLModel``: a scikit-learn estimator together with the transform it was trained behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..exceptions import ConflictError, InvalidInputError
from ..explainability.lime_samples import ColumnBins, TrainingStatistics
from ..explainability.rows import Rows, is_frame
from ..preprocessing.processor import (
    ClassCodes,
    DataProcessor,
    ProcessedArray,
    Task,
    check_task,
    label_array,
    read_target,
)
from .algorithms import check_hyperparameters, make_estimator
from .storage import read_state, state_bytes, write_state

__all__ = ["MLModel"]

#: Rows that the statistics for LIME are taken of, spread evenly over the training rows.
_STATISTICS_ROWS = 20_000


class MLModel:
    """Trains, predicts, is explained and saved; takes tables and processed rows alike.

    Fitted on what a ``DataProcessor`` returned, it keeps that processor and applies it to
    every DataFrame it is given later; arrays are taken as they are.

    Args:
        algorithm: a name in ``ALGORITHMS``.
        hyperparameters: of the estimator; ``random_state`` is 0 unless it is given.
        task: ``classification`` or ``regression``; None: the target decides.

    Raises:
        InvalidInputError: the algorithm or a hyperparameter is unknown; with the nearest.
        ConfigurationError: the algorithm's package is not installed.
    """

    def __init__(
        self,
        algorithm: str = "gradient_boosting",
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        task: Task | None = None,
    ) -> None:
        check_task(task)
        self.algorithm = algorithm
        self.hyperparameters = dict(hyperparameters or {})
        check_hyperparameters(algorithm, self.hyperparameters)
        self._asked = task
        self._estimator: Any = None
        self._classes: np.ndarray | None = None
        #: ``classification`` or ``regression``; None before ``fit`` where it was not given
        self.task: Task | None = task
        #: the numbers of a row, by name; None before ``fit``
        self.feature_names: list[str] | None = None
        #: what turns a table into rows; None where the model was fitted on a plain array
        self.processor: DataProcessor | None = None
        #: what ``LIMEExplainer`` needs in place of training rows
        self.training_statistics: TrainingStatistics | None = None

    @property
    def estimator(self) -> Any:
        """The trained scikit-learn estimator; of classes, it predicts codes."""
        if self._estimator is None:
            raise ConflictError("This MLModel was not trained yet; call fit(X, y) first.")
        return self._estimator

    @property
    def classes_(self) -> np.ndarray:
        """The labels in the order of ``predict_proba``'s columns."""
        self.estimator  # noqa: B018  refuses before fit
        if self._classes is None:
            raise AttributeError("A regression has no classes.")
        return self._classes

    @property
    def class_names(self) -> list[str] | None:
        """The labels as texts; None for a regression."""
        return None if self._classes is None else [str(label) for label in self._classes]

    def fit(self, X: Any, y: Any) -> Self:
        """Train on processed rows, an array, or a DataFrame (with a processor of its own).

        Raises:
            InvalidInputError: rows, target and hyperparameters do not fit; one sentence. The
                model stays as it was.
        """
        if is_frame(X):
            X, y = DataProcessor(task=self._asked).fit_transform(X, y)
        processor = X.processor if isinstance(X, ProcessedArray) else None
        names = X.feature_names if isinstance(X, ProcessedArray) else None
        rows = _numbers(X)
        names = names or [f"f{place}" for place in range(rows.shape[1])]
        if len(np.asarray(y)) != len(rows):
            raise InvalidInputError(
                f"X has {len(rows)} rows and y {len(np.asarray(y))}; give one value a row.",
                field="y",
            )
        task, target, classes = _read_target(y, self._asked, processor)
        estimator = make_estimator(self.algorithm, task, self.hyperparameters)
        _check_finite(rows, names, estimator)
        _fit(estimator, rows, target)
        self._estimator, self._classes, self.task = estimator, classes, task
        self.feature_names, self.processor = list(names), processor
        self.training_statistics = _statistics(rows, self.feature_names)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,) of a table or rows; of a regression, values.

        Raises:
            InvalidInputError: the columns are others than in training, or a value cannot be
                used; by its column.
        """
        found = np.asarray(self.estimator.predict(self._rows(X)))
        return found if self._classes is None else self._classes[found.astype(np.int64)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, classes) in the order of ``classes_``; raises as ``predict``."""
        if self.task == "regression":
            raise InvalidInputError(
                f"This {self.algorithm} predicts a value, which has no probability; use predict(X)."
            )
        estimator = self.estimator
        return np.asarray(estimator.predict_proba(self._rows(X)))

    def score(self, X: Any, y: Any) -> float:
        """The share of right labels, or R² of a regression, on rows with known targets."""
        from sklearn.metrics import r2_score

        found = self.predict(X)
        known = y.labels() if isinstance(y, ClassCodes) else np.asarray(y)
        if len(known) != len(found):
            raise InvalidInputError(
                f"X has {len(found)} rows and y {len(known)}; give one value a row.", field="y"
            )
        if self.task == "regression":
            return float(r2_score(known, found))
        return float(np.mean(found == known))

    def save(self, path: str | Path) -> Path:
        """Write model and processor as one file without code; raises as ``load``."""
        statistics = self.training_statistics
        bins = [vars(column) for column in statistics.columns] if statistics else []
        return write_state(path, {**self._state(), "bins": bins})

    def to_bytes(self) -> bytes:
        """The same for a platform, without what LIME knows of the rows: their least and largest.

        Raises as ``load``.
        """
        return state_bytes({**self._state(), "bins": []})

    def _state(self) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "hyperparameters": self.hyperparameters,
            "task": self.task,
            "classes": None if self._classes is None else self._classes.tolist(),
            "feature_names": self.feature_names,
            "estimator": self.estimator,
            "processor": None if self.processor is None else self.processor.to_state(),
        }

    @classmethod
    def load(cls, path: str | Path) -> MLModel:
        """The model that ``save`` wrote.

        Raises:
            NotFoundError: there is no such file or folder.
            InvalidInputError: the file is none of ``save``'s, or holds a type that is not
                known to be only data; the type is named and nothing is executed.
            ConfigurationError: skops is not installed (the extra ``models``).
        """
        return cls.from_state(read_state(path))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> MLModel:
        """The model of what ``storage.read_state`` or ``storage.estimator_state`` read."""
        made = cls(state["algorithm"], state["hyperparameters"], task=state["task"])
        made._estimator = state["estimator"]
        if state["classes"] is not None:
            made._classes = label_array(state["classes"])
        names = list(state["feature_names"])
        made.feature_names = names
        if state["processor"] is not None:
            made.processor = DataProcessor.from_state(state["processor"])
        bins = tuple(ColumnBins(**column) for column in state["bins"])
        made.training_statistics = TrainingStatistics(tuple(names), bins)
        return made

    def __repr__(self) -> str:
        if self._estimator is None:
            return f"MLModel({self.algorithm!r}), not trained"
        return (
            f"MLModel({self.algorithm!r}): {self.task} on {len(self.feature_names or ())} numbers"
        )

    def _rows(self, X: Any) -> np.ndarray:
        estimator = self.estimator
        names = self.feature_names or []
        if is_frame(X):
            found = self.processor
            rows = _named(X, names) if found is None else _numbers(found.transform(X))
        else:
            _check_names(X, names)
            rows = _numbers(X)
        if rows.shape[1] != len(names):
            raise InvalidInputError(
                f"X has {rows.shape[1]} numbers a row and the model takes {len(names)}: "
                f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}.",
                field="X",
            )
        _check_finite(rows, names, estimator)
        return rows


def _numbers(X: Any) -> np.ndarray:
    try:
        rows = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(
            "X holds values that are no numbers; pass a DataFrame, or what "
            "DataProcessor().fit_transform returned.",
            field="X",
        ) from None
    if rows.ndim != 2 or not rows.size:
        raise InvalidInputError(
            f"X has the shape {rows.shape}; a table of at least one row has (rows, columns), and "
            "one row is X[:1].",
            field="X",
        )
    return rows


def _check_names(X: Any, names: list[str]) -> None:
    """Refuse processed rows whose numbers are others, or stand in another order."""
    found = X.feature_names if isinstance(X, ProcessedArray) else None
    if found is not None and found != names and len(found) == len(names):
        raise InvalidInputError(
            f"X has the numbers {', '.join(map(repr, found[:5]))}, ... and the model takes "
            f"{', '.join(map(repr, names[:5]))}, ...; transform with model.processor.",
            field="X",
        )


def _named(X: Any, names: list[str]) -> np.ndarray:
    """A frame's numbers in the order of names that it must have."""
    for name in names:
        if name not in X.columns:
            raise InvalidInputError(
                f"Column {name!r} is missing; the model was trained on an array and takes "
                f"{len(names)} columns: {', '.join(names[:10])}.",
                field=name,
                choices=names,
            )
    for name in X.columns:
        if name not in names:
            raise InvalidInputError(
                f"{name!r} is not a column of the model; leave it out: "
                f"df.drop(columns=[{name!r}]).",
                field=str(name),
            )
    return _numbers(X[names])


def _check_finite(rows: np.ndarray, names: list[str], estimator: Any) -> None:
    """Say where a value is missing or infinite, unless the estimator takes it."""
    from sklearn.utils import get_tags

    bad = ~np.isfinite(rows)
    if not bad.any() or (get_tags(estimator).input_tags.allow_nan and not np.isinf(rows).any()):
        return
    row, column = (int(place[0]) for place in np.nonzero(bad))
    word = "missing" if np.isnan(rows[row, column]) else "infinite"
    raise InvalidInputError(
        f"{names[column]!r} is {word} in row {row}, and {type(estimator).__name__} takes no such "
        "value; pass the table through a DataProcessor, which fills it in.",
        field=names[column],
    )


def _read_target(
    y: Any, asked: Task | None, processor: DataProcessor | None
) -> tuple[Task, np.ndarray, np.ndarray | None]:
    """What is predicted, as numbers, and the classes these are codes of."""
    import pandas as pd

    if isinstance(y, ClassCodes) and y.classes is not None:
        if asked == "regression":
            raise InvalidInputError(
                "y holds codes of classes, and this model was made with task='regression'; leave "
                "task= out, or process the table with DataProcessor(task='regression').",
                field="task",
            )
        return "classification", np.asarray(y), y.classes
    known = asked or (processor.task if processor is not None else None)
    values = pd.Series(np.asarray(y).ravel(), name="target")
    task, found = read_target(values, known)
    return task, np.asarray(found), found.classes if isinstance(found, ClassCodes) else None


def _fit(estimator: Any, rows: np.ndarray, target: np.ndarray) -> None:
    try:
        estimator.fit(rows, target)
    except (ValueError, TypeError) as error:
        # Rows and target were checked, so what is left are the hyperparameters' values.
        sentence = " ".join(str(error).split()).rstrip(".")
        raise InvalidInputError(f"{sentence}.", field="hyperparameters") from error


def _statistics(rows: np.ndarray, names: list[str]) -> TrainingStatistics:
    """Bins of every number; those of only 0 and 1 are categories."""
    step = -(-len(rows) // _STATISTICS_ROWS)
    some = rows[::step]
    flags = [place for place in range(rows.shape[1]) if np.isin(some[:, place], (0.0, 1.0)).all()]
    return TrainingStatistics.of(Rows(tuple(names), some), flags)
