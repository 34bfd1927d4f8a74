"""A trained estimator on its way to an endpoint: described, uploaded, registered, deployed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.registry import CreateVersion
from truststram_lab.schemas.tables import Column, Signature

if TYPE_CHECKING:
    from truststram_lab.models import MLModel

__all__ = ["default_name", "described", "version_of"]


def described(model: Any) -> tuple[bytes, Signature]:
    """An estimator as a file without code, and what it takes and tells.

    Args:
        model: a trained ``MLModel``, or an estimator of scikit-learn's.

    Raises:
        InvalidInputError: it is neither, or holds a type that is not known to be only data.
        ConflictError: it was not trained yet.
        ConfigurationError: skops is not installed.
    """
    from truststram_lab.models import MLModel
    from truststram_lab.models.storage import estimator_bytes

    if isinstance(model, MLModel):
        return model.to_bytes(), _signature(model)
    if not hasattr(model, "predict") or not hasattr(model, "n_features_in_"):
        raise InvalidInputError(
            f"A {type(model).__name__} cannot be deployed; give a trained MLModel or scikit-learn "
            "estimator, or the model_id of one that is registered.",
            field="model",
        )
    return estimator_bytes(model), _bare_signature(model)


def version_of(sha256: str, signature: Signature) -> CreateVersion:
    """What is registered of the file with that content."""
    return CreateVersion(format="skops", weights_sha256=sha256, signature=signature)


def default_name(model: Any, signature: Signature) -> str:
    """A name for what has none: of the algorithm and the target."""
    kind = getattr(model, "algorithm", None) or type(model).__name__
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", f"{kind}-{signature.target}").lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:100]


def _signature(model: MLModel) -> Signature:
    processor = model.processor
    if processor is not None and processor.signature is not None:
        return processor.signature
    if processor is not None:
        return Signature(columns=processor.columns, target=processor.target, task="regression")
    return _plain(model.feature_names or (), model.class_names or [])


def _bare_signature(model: Any) -> Signature:
    from truststram_lab.learning.columns import label_text

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
