"""A converted estimator in onnxruntime: numpy in, numpy out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime

__all__ = ["METADATA", "OnnxModel"]

#: where a converted file keeps what is not in its graph
METADATA = "truststram"


class OnnxModel:
    """Computes as the estimator did that the file was converted from.

    Args:
        content: of the file, with the key ``METADATA``.

    Raises:
        ValueError: it is no such file.
    """

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        # A worker computes on one core; more cores are used by more workers.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            about = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA])
        except Exception as error:
            raise ValueError("It is no converted model.") from error
        self.names: list[str] = about["names"]
        self.transform: dict[str, Any] | None = about["transform"]
        self._places: list[int] | None = about["places"]
        self._classes: int = about["classes"]
        self._input = self._session.get_inputs()[0].name
        outputs = [output.name for output in self._session.get_outputs()]
        # Of classes: labels and probabilities.
        self._output = [outputs[-1]]

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes), or values (n, 1), of numbers (n, features)."""
        (found,) = self._session.run(self._output, {self._input: numbers.astype(np.float32)})
        values = np.asarray(found, dtype=np.float64).reshape(len(numbers), -1)
        if self._places is None or self._places == list(range(self._classes)):
            return values
        out = np.zeros((len(numbers), self._classes))
        out[:, self._places] = values
        return out
