"""A fitted ``DataProcessor`` in numpy alone, for a worker without scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..exceptions import InvalidInputError
from ..schemas.tables import Column

if TYPE_CHECKING:
    from .processor import DataProcessor

__all__ = ["TableTransform"]


class TableTransform:
    """Rows as a worker reads them into the numbers that the model was trained on.

    The same arithmetic in float64, in the same order, as the processor's own transformers: equal
    bit by bit.

    Args:
        width: columns of a row.
        numeric, boolean, gaps: places of columns: of numbers, of flags, and of those in which
            values may be missing.
        medians, means, scales: of the numeric columns.
        modes: of the boolean ones.
        categorical: place and number of slots of each column of categories; the last slot is
            "was missing" where that may be.
    """

    def __init__(
        self,
        *,
        width: int,
        numeric: Sequence[int],
        medians: Sequence[float],
        means: Sequence[float],
        scales: Sequence[float],
        boolean: Sequence[int],
        modes: Sequence[float],
        gaps: Sequence[int],
        categorical: Sequence[Sequence[int]],
    ) -> None:
        self._document = {
            "width": width,
            "numeric": list(numeric),
            "medians": list(medians),
            "means": list(means),
            "scales": list(scales),
            "boolean": list(boolean),
            "modes": list(modes),
            "gaps": list(gaps),
            "categorical": [list(pair) for pair in categorical],
        }
        self._numeric, self._boolean, self._gaps = list(numeric), list(boolean), list(gaps)
        self._medians, self._means = np.array(medians, float), np.array(means, float)
        self._scales, self._modes = np.array(scales, float), np.array(modes, float)
        self._categorical = [(int(place), int(slots)) for place, slots in categorical]
        #: numbers of a row
        self.outputs = len(self._numeric) + len(self._boolean) + len(self._gaps)
        self.outputs += sum(slots for _, slots in self._categorical)

    @classmethod
    def of(cls, processor: DataProcessor) -> Self:
        """What ``processor.transform`` does, once it was fitted.

        Raises:
            InvalidInputError: it holds something that this cannot do.
        """
        columns, parts = processor.columns, _parts(processor.to_state()["transformer"])
        numeric, boolean = parts.get("numeric"), parts.get("boolean")
        found = cls(
            width=len(columns),
            numeric=_places(columns, "numeric"),
            medians=[] if numeric is None else numeric[0].statistics_.tolist(),
            means=[] if numeric is None else numeric[1].mean_.tolist(),
            scales=[] if numeric is None else numeric[1].scale_.tolist(),
            boolean=_places(columns, "boolean"),
            modes=[] if boolean is None else boolean.statistics_.astype(float).tolist(),
            gaps=[p for kind in ("numeric", "boolean") for p in _places(columns, kind, gaps=True)],
            categorical=[
                (place, len(columns[place].categories) + columns[place].nullable)
                for place in _places(columns, "categorical")
            ],
        )
        known = found._medians, found._means, found._scales, found._modes
        if found.outputs != len(processor.get_feature_names_out()) or not all(
            np.isfinite(array).all() for array in known
        ):
            raise InvalidInputError("The processor has a column that never had a value.")
        return found

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """What ``document`` was made of."""
        return cls(**document)

    def document(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return dict(self._document)

    def __call__(self, matrix: np.ndarray) -> np.ndarray:
        """Rows (n, columns) as float64 (n, ``outputs``).

        Args:
            matrix: in the columns' order: numbers and booleans, NaN where missing; categories
                as places in their column's list, -1 where missing.
        """
        missing = np.isnan(matrix)
        numbers = matrix[:, self._numeric]
        numbers = np.where(missing[:, self._numeric], self._medians, numbers)
        flags = matrix[:, self._boolean]
        flags = np.where(missing[:, self._boolean], self._modes, flags)
        parts = [(numbers - self._means) / self._scales, flags, missing[:, self._gaps]]
        every = np.arange(len(matrix))
        for place, slots in self._categorical:
            chosen = np.zeros((len(matrix), slots))
            # -1 is the last slot: "was missing".
            chosen[every, matrix[:, place].astype(np.int64)] = 1.0
            parts.append(chosen)
        return np.concatenate(parts, axis=1, dtype=np.float64)


def _parts(transformer: Any) -> dict[str, Any]:
    return {name: fitted for name, fitted, _ in transformer.transformers_ if name != "remainder"}


def _places(columns: Sequence[Column], kind: str, *, gaps: bool = False) -> list[int]:
    return [
        place
        for place, column in enumerate(columns)
        if column.kind == kind and (column.nullable or not gaps)
    ]
