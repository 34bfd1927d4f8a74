"""What compression took away, kept for the next round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...exceptions import InvalidInputError
from ..encodings import Compact
from ..weights import State
from .kinds import Part, work_dtype

__all__ = ["ErrorFeedback"]


@dataclass(frozen=True, eq=False)
class ErrorFeedback:
    """What sparsification and quantisation have left unsent so far; empty at the start.

    It is added to the next update before it is compressed, so nothing is lost, only late: all
    that was sent plus ``residual`` is all that entered the compression. One participant keeps
    one of a federation, stores ``residual`` between rounds (``weights.encode``), and goes on with
    a round's new one only when the platform has taken that round's update.

    Attributes:
        residual: name -> floats, float32 or float64, in the shape of the update's array.

    Seide et al. 2014, "1-Bit Stochastic Gradient Descent", section 2.2; Stich, Cordonnier,
    Jaggi 2018, algorithm 1, https://arxiv.org/abs/1809.07599; Karimireddy et al. 2019, "Error
    Feedback Fixes SignSGD and other Gradient Compression Schemes", algorithm 2,
    https://arxiv.org/abs/1901.09847
    """

    residual: State = field(default_factory=dict)

    def add_to(self, parts: Mapping[str, Part]) -> dict[str, Part]:
        """The update with the residual added, its floats in new arrays; all of it is dense.

        Raises:
            InvalidInputError: the residual has an array that the update has not, or of another
                shape, or with values that are not finite.
        """
        for name, kept in self.residual.items():
            part = parts.get(name)
            if not isinstance(part, Compact) or part.shape != kept.shape:
                found = "is not" if not isinstance(part, Compact) else f"has shape {part.shape}"
                raise InvalidInputError(
                    f"The residual has floats {name!r} of shape {kept.shape}, which in the "
                    f"update {found}; start with an empty ErrorFeedback() for another model.",
                    field=name,
                )
            if not np.isfinite(kept).all():
                raise InvalidInputError(
                    f"The residual's array {name!r} is not finite; start with an empty "
                    "ErrorFeedback().",
                    field=name,
                )
        return {name: self._added(name, part) for name, part in parts.items()}

    def _added(self, name: str, part: Part) -> Part:
        if not isinstance(part, Compact):
            return part
        dtype = work_dtype(part.dtype)
        # Always a new array: ``after`` subtracts in it what was sent.
        kept = self.residual.get(name)
        if kept is None:
            out = part.floats(dtype).copy()
        else:
            out = np.add(kept.reshape(-1), part.floats(dtype), dtype=dtype, casting="same_kind")
        return Compact(part.shape, part.dtype, None, out)

    @staticmethod
    def after(entered: Mapping[str, Part], sent: Mapping[str, Part]) -> ErrorFeedback:
        """What of ``entered``, which ``add_to`` gave and nobody uses again, is not in ``sent``."""
        residual: State = {}
        for name, part in entered.items():
            if not isinstance(part, Compact):
                continue
            now = sent[name]
            assert isinstance(now, Compact), "filters keep the kind of an array"
            dtype = work_dtype(part.dtype)
            left = part.floats(dtype)
            gone = now.floats().astype(dtype, copy=False)
            if now.indices is None:
                left = left - gone  # not in place: an array that lost nothing is still the same
            else:
                left[now.indices] -= gone
            residual[name] = left.reshape(part.shape)
        return ErrorFeedback(residual)
