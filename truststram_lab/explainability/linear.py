"""Linear models in closed form, also behind transformations of single columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .interfaces import Floats
from .rows import Rows

__all__ = ["Front", "coefficients", "column_front"]

#: scikit-learn's transformers that make each output column of one input column, in order.
_COLUMNWISE = {
    "Binarizer",
    "MaxAbsScaler",
    "MinMaxScaler",
    "OrdinalEncoder",
    "PowerTransformer",
    "QuantileTransformer",
    "RobustScaler",
    "SimpleImputer",
    "StandardScaler",
}


class Front:
    """What stands before the last estimator: rows -> its inputs, and whose each input is.

    Args:
        model: the last estimator.
        encode: rows as the whole model takes them -> float64 (n, inputs).
        owner: (inputs,), the original column of each.
    """

    def __init__(self, model: Any, encode: Callable[[Rows], Floats], owner: np.ndarray) -> None:
        self.model, self.encode, self.owner = model, encode, owner

    def gather(self, by_input: Floats, columns: int) -> Floats:
        """Contributions of inputs (n, inputs, k) summed by column, (n, columns, k)."""
        if len(self.owner) == columns and (self.owner == np.arange(columns)).all():
            return by_input
        found = np.zeros((by_input.shape[0], columns, by_input.shape[2]))
        for place, column in enumerate(self.owner):
            found[:, column] += by_input[:, place]
        return found


def column_front(model: Any, columns: int, names: tuple[str, ...]) -> Front | None:
    """The front of a pipeline whose steps work on single columns; None where they do not."""
    steps = getattr(model, "steps", None)
    if steps is None or not hasattr(model, "named_steps"):
        return Front(model, lambda rows: rows.matrix(), np.arange(columns))
    owner: np.ndarray | None = np.arange(columns)
    for _, step in steps[:-1]:
        owner = None if owner is None else _owners(step, owner, names)
    if owner is None:
        return None
    before = model[:-1]

    def encode(rows: Rows) -> Floats:
        found = before.transform(rows.native()) if len(steps) > 1 else rows.matrix()
        found = found.toarray() if hasattr(found, "toarray") else found
        return np.asarray(found, dtype=np.float64)

    return Front(steps[-1][1], encode, owner)


def _owners(step: Any, owner: np.ndarray, names: tuple[str, ...]) -> np.ndarray | None:
    """Whose the outputs of a transformer are, given whose its inputs are."""
    kind = type(step).__name__
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return owner
    if not type(step).__module__.startswith("sklearn."):
        return None
    if kind == "Pipeline":
        found: np.ndarray | None = owner
        for _, inner in step.steps:
            found = None if found is None else _owners(inner, found, names)
        return found
    if kind == "ColumnTransformer":
        return _column_transformer(step, owner, names)
    if kind == "OneHotEncoder":
        wide = [len(found) for found in step.categories_]
        if step.drop_idx_ is not None:
            dropped = [0 if at is None else 1 for at in step.drop_idx_]
            wide = [w - d for w, d in zip(wide, dropped, strict=True)]
        found = np.repeat(owner, wide)
        return found if len(found) == len(step.get_feature_names_out()) else None
    if kind == "FunctionTransformer" and step.func is None:
        return owner  # a column transformer's "passthrough"
    if kind in _COLUMNWISE:
        return owner if _same_width(step, len(owner)) else None
    return None


def _same_width(step: Any, width: int) -> bool:
    try:
        return len(step.get_feature_names_out()) == width
    except (AttributeError, ValueError):
        return False


def _column_transformer(step: Any, owner: np.ndarray, names: tuple[str, ...]) -> np.ndarray | None:
    known = getattr(step, "feature_names_in_", names)
    places = {str(name): place for place, name in enumerate(known)}
    width = max((part.stop for part in step.output_indices_.values()), default=0)
    found = np.full(width, -1)
    for label, inner, columns in step.transformers_:
        if isinstance(inner, str) and inner == "drop":
            continue
        picked = _places(columns, places, len(owner))
        if picked is None:
            return None
        own = _owners(inner, owner[picked], names)
        part = step.output_indices_[label]
        if own is None or len(own) != part.stop - part.start:
            return None
        found[part] = own
    return found if (found >= 0).all() else None


def _places(columns: Any, places: dict[str, int], width: int) -> list[int] | None:
    if isinstance(columns, slice):
        return list(range(width))[columns] if not isinstance(columns.start, str) else None
    listed = [columns] if isinstance(columns, str) else list(columns)
    if listed and all(isinstance(entry, bool | np.bool_) for entry in listed):
        return [place for place, taken in enumerate(listed) if taken]
    found = [places.get(entry) if isinstance(entry, str) else int(entry) for entry in listed]
    return None if None in found else [place for place in found if place is not None]


def coefficients(front: Front, inputs: Floats, outputs: Floats) -> Floats | None:
    """(inputs, own) coefficients, if the model's outputs are affine in its inputs.

    A model is taken for linear by what it computes, not by its name: ``inputs @ coef`` has to
    differ from ``outputs`` by a constant (a model with another link does not pass).
    """
    coef = getattr(front.model, "coef_", None)
    if coef is None:
        return None
    coef = coef.toarray() if hasattr(coef, "toarray") else np.asarray(coef, dtype=np.float64)
    coef = np.atleast_2d(coef).astype(np.float64).T
    if coef.shape != (inputs.shape[1], outputs.shape[1]):
        return None
    rest = outputs - inputs @ coef
    scale = 1.0 + np.abs(outputs).max() + np.abs(inputs @ coef).max()
    return coef if np.ptp(rest, axis=0).max() <= 1e-6 * scale else None
