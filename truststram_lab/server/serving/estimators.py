"""What estimators have in common, whether scikit-learn or onnxruntime computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError, PlatformError
from truststram_lab.preprocessing.table_transform import TableTransform
from truststram_lab.schemas.serving import Explanation
from truststram_lab.schemas.tables import Signature

__all__ = ["Estimator"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Estimator:
    """A version that computes.

    Args:
        label: ``name:version``, for sentences.
        signature: of the version.
        transform: from a row's columns to the model's numbers; None: they are these numbers.
        names: of the model's numbers.
        run: from numbers (n, features) to probabilities (n, classes), or to values (n,) of
            a regression.

    Raises:
        PlatformError: the parts do not fit each other, or it does not answer.
    """

    def __init__(
        self,
        label: str,
        signature: Signature,
        transform: TableTransform | None,
        names: Sequence[str],
        run: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.signature = signature
        self._label = label
        self._transform = transform
        self._names = list(names)
        self._run = run
        width = len(signature.columns) if transform is None else transform.outputs
        if width != len(names):
            raise PlatformError(
                f"The stored model of {label} takes {len(names)} numbers, and its columns make "
                f"{width}; upload it again."
            )
        wanted = len(signature.classes) or 1
        if self._outputs(np.zeros((1, width))).shape != (1, wanted):
            raise PlatformError(
                f"The stored model of {label} does not answer with {wanted} numbers a row; "
                "upload it again with the signature that it was trained with."
            )

    def compute(self, matrix: np.ndarray) -> np.ndarray:
        """Probabilities (rows, classes), or values (rows, 1) of a regression."""
        return self._outputs(matrix if self._transform is None else self._transform(matrix))

    def _outputs(self, numbers: np.ndarray) -> np.ndarray:
        self._refuse_absurd(numbers)
        found = np.asarray(self._run(numbers), dtype=np.float64)
        return found.reshape(len(numbers), -1)

    def _refuse_absurd(self, numbers: np.ndarray) -> None:
        """Refuse what is no number to a model that computes in 32 bits, as trees do."""
        absurd = np.abs(numbers) > _FLOAT32_MAX
        if absurd.any():
            row, place = (int(found[0]) for found in np.nonzero(absurd))
            name = self._names[place]
            raise InvalidInputError(
                f"{name!r} is {numbers[row, place]:g} to the model, too large to compute with; "
                "correct the value.",
                field=name,
            )

    def explain(
        self, matrix: np.ndarray, rows: list[dict[str, Any]], label: str | None
    ) -> list[Explanation]:
        """Nothing yet: what explains an estimator is the caller's own explainer."""
        del matrix, rows, label
        raise InvalidInputError(
            f"{self._label} was deployed without an explainer; leave explain out, or explain it "
            "in Python with SHAPExplainer or LIMEExplainer.",
            field="explain",
        )
