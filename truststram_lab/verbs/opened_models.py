"""A registered model, opened in this kernel from its safe formats, as its columns name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.explainability import ExplanationSet, explain_rows
from truststram_lab.learning.network import Network
from truststram_lab.learning.weights import decode
from truststram_lab.preprocessing import TableEncoder, validate_row

if TYPE_CHECKING:
    import pandas as pd

    from truststram_lab.client import TrustStramClient
    from truststram_lab.schemas.registry import ModelVersion
    from truststram_lab.schemas.serving import Explanation
    from truststram_lab.schemas.tables import Signature

__all__ = ["RegisteredNetwork", "WholeModel", "open_version", "records_of"]


class RegisteredNetwork:
    """A network of the platform with scikit-learn's interface, over the columns people know.

    Args:
        version: of format ``safetensors``, with its statistics.
        weights: its file.
    """

    def __init__(self, version: ModelVersion, weights: bytes) -> None:
        assert version.architecture is not None
        assert version.statistics is not None
        self.signature: Signature = version.signature
        self.statistics = version.statistics
        state, _ = decode(weights)
        self.network = Network(version.architecture, state, self.signature)
        self.encoder = TableEncoder(self.signature, self.statistics)
        self.classes_ = np.array(self.signature.classes, dtype=object)
        self.feature_names_in_ = np.array([c.name for c in self.signature.columns], dtype=object)
        self.n_features_in_ = len(self.signature.columns)

    def decision_function(self, frame: pd.DataFrame) -> np.ndarray:
        """Log-odds of the second of two classes (n,), else a logit a class (n, classes)."""
        logits = self.network.logits(self._encoded(frame))
        if logits.shape[1] > 1:
            return logits
        towards = self.signature.positive_class in (None, self.signature.classes[-1])
        return logits[:, 0] if towards else -logits[:, 0]

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        """Probabilities (n, classes), in the signature's order."""
        return self.network.probabilities(self._encoded(frame))

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """The likeliest class of each row."""
        found: np.ndarray = self.classes_[self.predict_proba(frame).argmax(axis=1)]
        return found

    def explain(self, frame: pd.DataFrame) -> ExplanationSet:
        """What ``%ts_predict --explain`` says of each row: from the federated means, no rows."""
        rows = records_of(frame, self.signature)
        encoded = self._encoded(frame)
        binary = self.signature.positive_class is not None
        labels: Sequence[str | None] = [None] if binary else self.signature.classes
        found = [
            explain_rows(
                self.network, self.encoder, encoded, rows, self.signature, self.statistics, label
            )
            for label in labels
        ]
        return _as_set(found, rows, self.signature)

    def _encoded(self, frame: pd.DataFrame) -> np.ndarray:
        return self.encoder.encode_frame(frame)


class WholeModel:
    """An ``MLModel`` with what prepares its columns, so that these are what is explained.

    Args:
        model: a trained ``MLModel`` that has a ``processor``.
    """

    def __init__(self, model: Any, signature: Signature) -> None:
        self._model = model
        self.signature = signature
        self.feature_names_in_ = np.array([c.name for c in signature.columns], dtype=object)
        self.n_features_in_ = len(signature.columns)
        if signature.classes:
            self.classes_ = np.array(signature.classes, dtype=object)
            self.predict_proba = model.predict_proba

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """As the model."""
        found: np.ndarray = self._model.predict(frame)
        return found


def open_version(client: TrustStramClient, version: ModelVersion) -> Any:
    """What predicts as that version does; nothing that could run code is read.

    Raises:
        InvalidInputError: its file holds a type that is not known to be only data.
        ConfigurationError: skops is not installed, and it is an estimator.
    """
    content = client.models.download(f"{version.model}:{version.sequence}")
    if version.format == "safetensors":
        return RegisteredNetwork(version, content)
    from truststram_lab.models import MLModel
    from truststram_lab.models.storage import estimator_state

    state = estimator_state(content, f"The file of {version.model}:{version.sequence}")
    if "algorithm" not in state:
        return state["estimator"]
    model = MLModel.from_state(state)
    return model if model.processor is None else WholeModel(model, version.signature)


def records_of(frame: pd.DataFrame, signature: Signature) -> list[dict[str, Any]]:
    """Rows as the platform takes them, checked.

    Raises:
        InvalidInputError: a value does not fit its column; names the row.
    """
    plain = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    checked = []
    for place, row in enumerate(plain):
        values = {str(k): v.item() if hasattr(v, "item") else v for k, v in row.items()}
        try:
            checked.append(dict(validate_row(values, signature)))
        except InvalidInputError as error:
            raise InvalidInputError(
                f"Row {place}: {error.message}", field=error.field, choices=error.choices
            ) from error
    return checked


def _as_set(
    found: list[list[Explanation]], rows: list[dict[str, Any]], signature: Signature
) -> ExplanationSet:
    """Explanations of one class, or of each in turn, as arrays."""
    names = tuple(column.name for column in signature.columns)
    first = found[0][0]
    values = np.array(
        [[[part.contribution for part in one.contributions] for one in label] for label in found]
    )
    base = np.array([[one.base_value for one in label] for label in found])
    output = np.array([[one.output_value for one in label] for label in found])
    title = "Exact Shapley values" if first.method == "exact_shapley" else "DeepLIFT"
    meaning = first.meaning
    if len(found) == 1:
        classes: tuple[str, ...] = (first.explained_class,)
        values, base, output = values[0], base[0], output[0]
    else:
        classes = tuple(signature.classes)
        values, base, output = values.transpose(1, 2, 0), base.T, output.T
        meaning = meaning.replace(first.explained_class, "the class")
    return ExplanationSet(
        values=values,
        base_values=base,
        outputs=output,
        feature_names=names,
        data=tuple(tuple(row[name] for name in names) for row in rows),
        classes=classes,
        output="margin",
        method=first.method,
        title=title,
        meaning=meaning,
        background="federated means, no rows",
        background_sha256=first.background.sha256,
    )
