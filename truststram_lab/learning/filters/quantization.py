"""Values on few levels."""

from __future__ import annotations

import numpy as np

from ..encodings import Compact, Levels
from .kinds import Part, work_dtype

__all__ = ["quantise"]

#: Values worked on at a time: what they pass through fits a processor's cache.
_CHUNK = 1 << 15


def quantise(part: Part, bits: int) -> Part:
    """Round every value of an array to the nearest of evenly spaced levels around 0.

    The levels are ``code * scale`` with ``code`` from ``-L`` to ``L``, ``L = 2**(bits - 1) - 1``
    and ``scale = max |value| / L``: 0 stays exactly 0, the largest value stays itself (in
    float64 but for its last bit), and no value moves by more than half a step (and the rounding
    of its own type). One bit has the levels ``-max/2`` and ``max/2``; zeros stay zeros there,
    too, as cleared coordinates.

    To the nearest, half to even: it moves values least, and what it takes away error feedback
    gives back in the next round; stochastic rounding would be unbiased in every single round at
    up to four times the squared error. Values that become 0 are not stored where that is
    smaller. An array that is on as few levels already stays as it is; so do integers.

    Args:
        part: an array of any shape with finite values.
        bits: 1 to 32.

    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 2.1 (with zero point 0).
    https://arxiv.org/abs/1712.05877
    """
    if not isinstance(part, Compact):
        return part
    if part.levels is not None and part.levels.bits <= bits:
        return part
    values = part.floats(work_dtype(part.dtype))
    top = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    if top == 0.0:
        empty = Levels(np.empty(0, np.int32), 1.0, bits)
        return Compact(part.shape, part.dtype, np.empty(0, np.int64), empty)
    scale = top / 2.0 if bits == 1 else top / Levels.largest(bits)
    # Below the normal numbers a quotient has too few digits left to be a scale.
    scale = max(scale, float(np.finfo(np.float64).tiny))
    codes = _codes(values, scale, bits)
    return _without_zeros(part, Levels(codes, scale, bits))


def _codes(values: np.ndarray, scale: float, bits: int) -> np.ndarray:
    codes = np.empty(values.size, np.int32)
    limit = Levels.largest(bits)
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK].astype(np.float64)
        if bits == 1:
            np.sign(part, out=part)
        else:
            part /= scale
            np.rint(part, out=part)
            np.clip(part, -limit, limit, out=part)
        codes[start : start + _CHUNK] = part
    return codes


def _without_zeros(part: Compact, levels: Levels) -> Compact:
    nonzero = int(np.count_nonzero(levels.codes))
    zeros = levels.codes.size - nonzero
    if not zeros or (part.indices is None and levels.bits > 1 and zeros < nonzero):
        return Compact(part.shape, part.dtype, part.indices, levels)
    stored = np.flatnonzero(levels.codes).astype(np.int64, copy=False)
    indices = stored if part.indices is None else part.indices[stored]
    return Compact(
        part.shape, part.dtype, indices, Levels(levels.codes[stored], levels.scale, levels.bits)
    )
