"""Runtime ``network``: feed-forward networks in numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError, PlatformError
from truststram_lab.explainability import explain_rows
from truststram_lab.learning.network import Network
from truststram_lab.learning.weights import decode
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.schemas.registry import Architecture
from truststram_lab.schemas.serving import Explanation
from truststram_lab.schemas.tables import Signature, Statistics

from .files import content_of

__all__ = ["open_version"]


class _Network:
    """A network with what turns rows into its input."""

    def __init__(self, described: dict[str, Any]) -> None:
        label = described["label"]
        body = content_of(label, described["weights"], described["weights_sha256"])
        self.signature = Signature.model_validate(described["signature"])
        self._statistics = Statistics.model_validate(described["statistics"])
        try:
            state, _ = decode(body)
            architecture = Architecture.model_validate(described["architecture"])
            self._network = Network(architecture, state, self.signature)
        except InvalidInputError as error:
            raise PlatformError(
                f"The stored weights of {label} do not fit its architecture: {error.message}"
            ) from error
        self._encoder = TableEncoder(self.signature, self._statistics)
        outputs = self._network.probabilities(np.zeros((1, self._encoder.width)))
        if outputs.shape != (1, len(self.signature.classes)) or not np.isfinite(outputs).all():
            raise PlatformError(
                f"The stored network of {label} does not answer with one finite probability a "
                "class; train it again."
            )

    def compute(self, matrix: np.ndarray) -> np.ndarray:
        """Probabilities (rows, classes) of rows as ``RowReader`` reads them."""
        return self._network.probabilities(self._encoder.encode_matrix(matrix))

    def explain(
        self, matrix: np.ndarray, rows: list[dict[str, Any]], label: str | None
    ) -> list[Explanation]:
        """One explanation a row."""
        return explain_rows(
            self._network,
            self._encoder,
            self._encoder.encode_matrix(matrix),
            rows,
            self.signature,
            self._statistics,
            label,
        )


def open_version(described: dict[str, Any]) -> _Network:
    """The version, ready to compute.

    Raises:
        PlatformError: its file is missing, damaged or does not fit.
    """
    return _Network(described)
