"""One array of an update in the form in which filters leave it: fewer coordinates, fewer bits."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...exceptions import UpdateRejectedError
from . import rice

__all__ = ["Compact", "Dtype", "Levels", "compact"]

Dtype: TypeAlias = np.dtype[Any]


@dataclass(frozen=True, eq=False)
class Levels:
    """Quantised values: each is ``codes * scale``, so that 0 is always exactly 0.

    Attributes:
        codes: int32 (n,), from ``-largest(bits)`` to ``largest(bits)``; never 0 when ``bits`` is 1.
        scale: float, positive; half the distance of two levels when ``bits`` is 1, else all of it.
        bits: 1 to 32.
    """

    codes: np.ndarray
    scale: float
    bits: int

    @staticmethod
    def largest(bits: int) -> int:
        """The largest code that ``bits`` bits can name, beside its negative and 0."""
        return max(1, (1 << (bits - 1)) - 1)

    @property
    def step(self) -> float:
        """The distance of two neighbouring levels."""
        return self.scale * (2.0 if self.bits == 1 else 1.0)

    def floats(self, dtype: Dtype) -> np.ndarray:
        """The values (n,), multiplied in float64 and rounded once."""
        if dtype == np.float64:
            return self.codes * self.scale
        out = np.empty(self.codes.size, dtype)
        np.multiply(self.codes, self.scale, out=out, dtype=np.float64, casting="same_kind")
        return out

    @functools.cached_property
    def magnitudes(self) -> np.ndarray:
        """Codes without their sign, less the smallest of them, int32 (n,)."""
        sizes: np.ndarray = np.abs(self.codes)
        sizes -= sizes.min(initial=Levels.largest(self.bits))
        return sizes

    @functools.cached_property
    def lowest(self) -> int:
        """The smallest size of a code; a top-k leaves none near 0."""
        return int(np.abs(self.codes).min()) if self.codes.size else 0

    @functools.cached_property
    def code(self) -> rice.RiceCode:
        """How the magnitudes are best written."""
        return rice.choose(self.magnitudes)


@dataclass(frozen=True, eq=False)
class Compact:
    """An array of floats: all its coordinates or some of them, as values or as levels.

    Attributes:
        shape: of the array; coordinates count in C order.
        dtype: of the array, float16, float32 or float64; values may be held in a wider one.
        indices: int64 (n,), strictly increasing; the coordinates outside are 0. None: all are in.
        values: floats (n,), or levels.
    """

    shape: tuple[int, ...]
    dtype: Dtype
    indices: np.ndarray | None
    values: np.ndarray | Levels

    @property
    def size(self) -> int:
        """Coordinates of the array."""
        return math.prod(self.shape)

    @property
    def kept(self) -> int:
        """Coordinates that are stored."""
        return self.size if self.indices is None else self.indices.size

    @property
    def levels(self) -> Levels | None:
        """The levels, where the values were quantised."""
        return self.values if isinstance(self.values, Levels) else None

    def floats(self, dtype: Dtype | None = None) -> np.ndarray:
        """The stored values (n,), by default in the array's own type.

        Raises:
            UpdateRejectedError: a value does not fit into that type.
        """
        wanted = self.dtype if dtype is None else dtype
        if isinstance(self.values, Levels):
            with np.errstate(over="ignore"):
                out = self.values.floats(wanted)
        else:
            with np.errstate(over="ignore"):
                out = self.values.astype(wanted, copy=False)
            if out.dtype.itemsize >= self.values.dtype.itemsize:
                return out
        if not np.isfinite(out).all():
            raise UpdateRejectedError(
                f"A value is too large for {wanted}; send the update in float32."
            )
        return out

    def dense(self) -> np.ndarray:
        """The array itself, a new one."""
        if self.indices is None:
            flat = self.floats()
            if isinstance(self.values, np.ndarray) and np.may_share_memory(flat, self.values):
                flat = flat.copy()
            return flat.reshape(self.shape)
        out = np.zeros(self.size, self.dtype)
        out[self.indices] = self.floats()
        return out.reshape(self.shape)

    @functools.cached_property
    def gaps(self) -> np.ndarray:
        """How many coordinates lie before each stored one and after the one before, int64 (n,)."""
        assert self.indices is not None, "an array that has all its coordinates has no gaps"
        gaps = np.diff(self.indices, prepend=-1)
        gaps -= 1
        return gaps

    @functools.cached_property
    def gap_code(self) -> rice.RiceCode:
        """How the gaps are best written."""
        return rice.choose(self.gaps)


def compact(array: np.ndarray) -> Compact:
    """An array of floats as it is, or without its zeros where at least half are zero.

    Nothing is lost: a negative zero is no zero here.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    bits = flat.view(f"u{flat.dtype.itemsize}")
    if not flat.size or 2 * np.count_nonzero(bits) > flat.size:
        return Compact(array.shape, flat.dtype, None, flat)
    indices = np.flatnonzero(bits).astype(np.int64, copy=False)
    return Compact(array.shape, flat.dtype, indices, flat[indices])
