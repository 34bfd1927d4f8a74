"""What a trained estimator takes and tells, and its file without code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..exceptions import InvalidInputError
from ..schemas.tables import Column, Signature
from .ml_model import MLModel
from .storage import estimator_bytes

__all__ = ["described"]


def described(model: Any) -> tuple[bytes, Signature]:
    """An estimator as a file without code, and what it takes and tells.

    Args:
        model: a trained ``MLModel``, or an estimator of scikit-learn's.

    Raises:
        InvalidInputError: it is neither, or holds a type that is not known to be only data.
        ConflictError: it was not trained yet.
        ConfigurationError: skops is not installed.
    """
    if isinstance(model, MLModel):
        return model.to_bytes(), _signature(model)
    if not hasattr(model, "predict") or not hasattr(model, "n_features_in_"):
        raise InvalidInputError(
            f"A {type(model).__name__} cannot be deployed; give a trained MLModel or scikit-learn "
            "estimator, or the model_id of one that is registered.",
            field="model",
        )
    return estimator_bytes(model), _bare_signature(model)


def _signature(model: MLModel) -> Signature:
    processor = model.processor
    if processor is not None and processor.signature is not None:
        return processor.signature
    if processor is not None:
        return Signature(columns=processor.columns, target=processor.target, task="regression")
    return _plain(model.feature_names or (), model.class_names or [])


def _bare_signature(model: Any) -> Signature:
    from ..learning.columns import label_text

    names = getattr(model, "feature_names_in_", None)
    found = [f"f{place}" for place in range(model.n_features_in_)] if names is None else names
    labels = [label_text(one) for one in getattr(model, "classes_", ())]
    return _plain([str(name) for name in found], labels)


def _plain(names: Sequence[str], classes: Sequence[str]) -> Signature:
    columns = [Column(name=name, kind="numeric") for name in names]
    if not classes:
        return Signature(columns=columns, target="target", task="regression")
    positive = classes[-1] if len(classes) == 2 else None
    return Signature(
        columns=columns, target="target", classes=list(classes), positive_class=positive
    )
