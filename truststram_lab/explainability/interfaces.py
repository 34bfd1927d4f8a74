"""What an explanation needs to know of a model: handed in, never imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["DenseLike", "EncoderLike", "Floats", "NetworkLike", "Numbers"]

Floats = NDArray[np.float64]
Numbers = NDArray[np.floating]


class DenseLike(Protocol):
    """``activation(x @ weight.T + bias)``; weight has shape (units, inputs)."""

    @property
    def weight(self) -> Numbers: ...
    @property
    def bias(self) -> Numbers: ...
    @property
    def activation(self) -> str: ...


class NetworkLike(Protocol):
    """A feed-forward network: its dense layers in order, and the logits they end in."""

    @property
    def layers(self) -> Sequence[DenseLike]: ...
    def logits(self, x: Floats, /) -> Numbers: ...


class EncoderLike(Protocol):
    """From table columns to network inputs: which inputs are whose, and what "absent" is."""

    @property
    def groups(self) -> Sequence[tuple[str, slice]]: ...
    def baseline(self) -> Floats: ...
