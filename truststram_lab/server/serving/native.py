"""Runtime ``sklearn``: scikit-learn's own estimators, read by skops and never unpickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
import sklearn.ensemble
import sklearn.linear_model
import sklearn.neural_network
import sklearn.tree
import skops.io  # noqa: F401

from truststram_lab.exceptions import InvalidInputError, PlatformError
from truststram_lab.learning.columns import label_text
from truststram_lab.models.storage import estimator_state
from truststram_lab.preprocessing.processor import DataProcessor
from truststram_lab.preprocessing.table_transform import TableTransform
from truststram_lab.schemas.tables import Signature

from .estimators import Estimator
from .files import content_of

__all__ = ["Opened", "open_model", "open_version"]

# Rows were checked before they come here, and each estimator would look at them once more.
sklearn.set_config(assume_finite=True)


class Opened:
    """A stored estimator and what it was trained behind.

    Attributes:
        transform: None where the model takes its columns as they are.
        names: of the numbers that the estimator takes.
        places: of its classes in the signature; None for a regression.
        run: from numbers to probabilities (n, classes), or to values (n,).
        bins: of the training rows' numbers, by column; empty where they are not known.
    """

    def __init__(self, label: str, signature: Signature, state: dict[str, Any]) -> None:
        self.label, self.signature = label, signature
        self.estimator = state["estimator"]
        self.names: list[str] = list(state["feature_names"])
        self.bins: list[dict[str, Any]] = state.get("bins") or []
        self.transform: TableTransform | None = None
        if state.get("processor") is not None:
            processor = DataProcessor.from_state(state["processor"])
            self.transform = TableTransform.of(processor)
        coded = state["classes"] is not None
        self.places = _class_places(self.estimator, signature, coded)
        self.run = _probabilities(self.estimator, signature, self.places)


def open_model(described: dict[str, Any]) -> Opened:
    """The stored model of a version.

    Raises:
        PlatformError: its file is missing, damaged, or none that is known to be only data.
    """
    label = described["label"]
    body = content_of(label, described["weights"], described["weights_sha256"])
    signature = Signature.model_validate(described["signature"])
    try:
        return Opened(label, signature, estimator_state(body, f"The stored model of {label}"))
    except InvalidInputError as error:
        raise PlatformError(error.message) from error


def open_version(described: dict[str, Any]) -> Estimator:
    """The version, ready to compute; raises as ``open_model``."""
    found = open_model(described)
    return Estimator(found.label, found.signature, found.transform, found.names, found.run)


def _probabilities(
    estimator: Any, signature: Signature, places: list[int] | None
) -> Callable[[np.ndarray], np.ndarray]:
    """The estimator as a function; a class that training never saw has probability 0."""
    if places is None:
        return lambda numbers: np.asarray(estimator.predict(numbers))
    if places == list(range(len(signature.classes))):
        return lambda numbers: np.asarray(estimator.predict_proba(numbers))

    def spread(numbers: np.ndarray) -> np.ndarray:
        out = np.zeros((len(numbers), len(signature.classes)))
        out[:, places] = estimator.predict_proba(numbers)
        return out

    return spread


def _class_places(estimator: Any, signature: Signature, coded: bool) -> list[int] | None:
    """Where each of the estimator's classes stands in the signature; None for a regression.

    Args:
        coded: it predicts places in the signature's classes, as an ``MLModel``'s does.
    """
    if not signature.classes:
        return None
    if not hasattr(estimator, "predict_proba"):
        raise PlatformError(
            f"{type(estimator).__name__} tells no probabilities of its classes; train one that "
            "does, for example with probability=True."
        )
    own = list(estimator.classes_)
    if coded:
        return [int(code) for code in own]
    texts = [label_text(label) for label in own]
    if set(texts) <= set(signature.classes):
        return [signature.classes.index(text) for text in texts]
    raise PlatformError(
        f"The stored model knows the classes {', '.join(texts[:5])} and its signature "
        f"{', '.join(signature.classes[:5])}; upload it again with its own."
    )
