"""Noise on every float of an update."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...exceptions import InvalidInputError
from ..encodings import Compact
from ..privacy.noise import NoiseSource, SecureRandom, add_noise
from .kinds import Part, work_dtype

__all__ = ["NoiseSource", "with_noise"]

#: Values at a time: noise is drawn in float64, and need not be held for all of an update.
_CHUNK = 1 << 20


def with_noise(
    parts: Mapping[str, Part], sigma: float, *, rng: NoiseSource | None
) -> dict[str, Part]:
    """Add N(0, ``sigma`` squared) to every float, also to those that an earlier filter cleared.

    The noise comes from AES-256 in counter mode under a key of the operating system that is
    kept nowhere (``learning.privacy.noise``), and is added on a lattice, so that the last bits
    of a sum tell nothing. Integers pass as they are.

    Args:
        parts: arrays of any shapes.
        sigma: standard deviation, positive, in the unit of the weights.
        rng: a source to go on with; by default a new one.

    Raises:
        InvalidInputError: a value is so large that the noise hides nothing of it.
    """
    source = SecureRandom() if rng is None else rng
    return {name: _noised(name, part, sigma, source) for name, part in parts.items()}


def _noised(name: str, part: Part, sigma: float, source: NoiseSource) -> Part:
    if not isinstance(part, Compact):
        return part
    dtype = work_dtype(part.dtype)
    values = part.floats(dtype)
    if part.indices is not None:
        values = np.zeros(part.size, dtype)
        values[part.indices] = part.floats(dtype)
    out = np.empty_like(values)
    for start in range(0, values.size, _CHUNK):
        end = start + _CHUNK
        try:
            out[start:end] = add_noise(values[start:end], sigma, rng=source)
        except ValueError as error:
            raise InvalidInputError(f"Array {name!r}: {error}", field=name) from error
    return Compact(part.shape, part.dtype, None, out)
