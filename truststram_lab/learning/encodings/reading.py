"""Reading an update that anybody may have written: every number is checked before it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ...exceptions import UpdateRejectedError, nearest
from .. import weights
from ..weights import State
from . import rice
from .compact import Compact, Levels
from .rice import RiceCode
from .writing import DESCRIPTION, DTYPES, PACKED

__all__ = ["decode", "unpack"]

_ALWAYS = {"name", "dtype", "shape"}
_SPARSE = {"count", "gap_width", "gap_unary"}
_LEVELS = {"bits", "scale", "lowest", "level_width", "level_unary"}


def decode(
    body: bytes | memoryview, like: Mapping[str, np.ndarray]
) -> tuple[State, dict[str, str]]:
    """The arrays of an update, in the order of ``like``, and its metadata.

    Args:
        body: what ``encode`` wrote, or ``weights.encode``; it may be hostile.
        like: the global model's arrays: the names, shapes and types to expect. What is
            allocated is bounded by their sizes and the body's, whatever the body says.

    Raises:
        UpdateRejectedError: the bytes are not a well-formed update of these arrays, or a value
            in it is not finite.
    """
    found, metadata = unpack(body, like)
    return {
        name: array.dense() if isinstance(array, Compact) else array
        for name, array in found.items()
    }, metadata


def unpack(
    body: bytes | memoryview, like: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray | Compact], dict[str, str]]:
    """As ``decode``, but sparse and quantised arrays stay small; the checks are the same."""
    whole, metadata = weights.decode(body)
    described = metadata.pop(DESCRIPTION, None)
    packed = whole.pop(PACKED, None)
    if (described is None) != (packed is None):
        raise _reject(f"it has {PACKED!r} in its metadata or among its arrays, but not in both")
    small: dict[str, Compact] = {}
    if described is not None and packed is not None:
        if packed.dtype != np.uint8 or packed.ndim != 1:
            raise _reject(f"its array {PACKED!r} is not one row of bytes")
        small = _unpack(_entries(described), packed.data, like)
    twice = small.keys() & whole.keys()
    if twice:
        raise _reject(f"it has array {min(twice)!r} twice")
    # An array in small stands for itself in the check of names: its own check is done.
    weights.check_update({**whole, **{name: _finite_like(like[name]) for name in small}}, like)
    merged: dict[str, np.ndarray | Compact] = {**whole, **small}
    return {name: merged[name] for name in like}, metadata


def _finite_like(array: np.ndarray) -> np.ndarray:
    # The shape and type without the values: a broadcast zero takes no memory.
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _reject(fact: str) -> UpdateRejectedError:
    return UpdateRejectedError(
        f"The update is not well-formed: {fact}; write it with "
        "truststram_lab.learning.encodings.encode."
    )


def _entries(text: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _reject("its description is not JSON") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _reject("its description is not a list of objects")
    return entries


def _unpack(
    entries: Iterable[dict[str, Any]], body: memoryview, like: Mapping[str, np.ndarray]
) -> dict[str, Compact]:
    found: dict[str, Compact] = {}
    at = 0
    for entry in entries:
        name = _name(entry, like)
        if name in found:
            raise _reject(f"it has array {name!r} twice")
        try:
            part = _Part(entry, like[name])
            if part.size_bytes > len(body) - at:
                raise ValueError(f"it claims {part.size_bytes} bytes, of which {len(body) - at} "
                                 "are there")  # fmt: skip
            found[name] = part.read(body[at : at + part.size_bytes])
        except ValueError as error:
            raise _reject(f"array {name!r} is wrong: {error}") from error
        at += part.size_bytes
    if at != len(body):
        raise _reject(f"{len(body) - at} packed bytes belong to no array")
    return found


def _name(entry: dict[str, Any], like: Mapping[str, np.ndarray]) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise _reject("an array in its description has no name")
    if name not in like:
        close = nearest(name[:200], like)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(like)}."
        raise UpdateRejectedError(
            f"Array {name[:200]!r} is not in the global model; {hint}", choices=close
        )
    return name


class _Part:
    """One array's entry, checked against the array it must look like, and its bytes."""

    def __init__(self, entry: dict[str, Any], like: np.ndarray) -> None:
        """Raises ValueError: the entry does not describe an array like ``like``."""
        keys = set(entry) - _ALWAYS
        self._sparse, self._quantised = keys >= _SPARSE, keys >= _LEVELS
        known = (_SPARSE if self._sparse else set()) | (_LEVELS if self._quantised else set())
        if not set(entry) >= _ALWAYS or keys != known or not keys:
            raise ValueError("its description has too few entries or too many")
        dtype, shape = entry["dtype"], entry["shape"]
        if not isinstance(dtype, str) or DTYPES.get(dtype) != like.dtype.newbyteorder("<"):
            raise ValueError(f"it has type {str(dtype)[:20]}, expected {like.dtype}")
        if not isinstance(shape, list) or not all(type(item) is int for item in shape):
            raise ValueError("its shape is not a list of lengths")
        if tuple(shape) != like.shape:
            raise ValueError(f"it has shape {str(shape)[:60]}, expected {list(like.shape)}")
        self._like = like
        self._count = _natural(entry, "count", like.size) if self._sparse else like.size
        self._gaps = self._code(entry, "gap") if self._sparse else RiceCode(0, 0, 0)
        self._levels = self._code(entry, "level") if self._quantised else RiceCode(0, 0, 0)
        if self._quantised:
            self._bits, self._scale, self._lowest = self._levels_of(entry)

    def _code(self, entry: dict[str, Any], which: str) -> RiceCode:
        width = _natural(entry, f"{which}_width", rice.MAX_WIDTH)
        return RiceCode(self._count, width, _natural(entry, f"{which}_unary", 2**62))

    def _levels_of(self, entry: dict[str, Any]) -> tuple[int, float, int]:
        bits = _natural(entry, "bits", 32)
        if not bits:
            raise ValueError("bits is 0, expected 1 to 32")
        scale = entry["scale"]
        if type(scale) is not float or not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"its scale is {str(scale)[:30]}, expected a positive float")
        largest = Levels.largest(bits)
        return bits, scale, _natural(entry, "lowest", largest)

    @property
    def size_bytes(self) -> int:
        plane = (self._count + 7) // 8
        each = self._like.dtype.itemsize
        values = plane + self._levels.size_bytes if self._quantised else self._count * each
        return self._gaps.size_bytes + values

    def read(self, body: memoryview) -> Compact:
        """Raises ValueError: the bytes are not what the entry describes."""
        indices = None
        if self._sparse:
            indices = self._read_indices(body[: self._gaps.size_bytes])
        rest = body[self._gaps.size_bytes :]
        dtype = self._like.dtype.newbyteorder("=")
        if self._quantised:
            return Compact(self._like.shape, dtype, indices, self._read_levels(rest))
        values = np.frombuffer(rest, dtype.newbyteorder("<")).astype(dtype, copy=False)
        if not np.isfinite(values).all():
            wrong = self._count - int(np.isfinite(values).sum())
            raise ValueError(f"{wrong} of its {self._count} values are not finite")
        return Compact(self._like.shape, dtype, indices, values)

    def _read_indices(self, body: memoryview) -> np.ndarray:
        last = self._like.size - 1
        gaps = rice.read(body, self._gaps, max(last, 0))
        # In floats first: a sum of hostile gaps must not come around at 64 bits.
        if gaps.sum(dtype=np.float64) > 2.0 * self._like.size:
            raise ValueError("a coordinate lies outside the array")
        gaps += 1
        indices = np.cumsum(gaps, out=gaps)
        indices -= 1
        if indices.size and indices[-1] > last:
            raise ValueError("a coordinate lies outside the array")
        return indices

    def _read_levels(self, body: memoryview) -> Levels:
        plane = (self._count + 7) // 8
        negative = rice.read_signs(body[:plane], self._count)
        largest = Levels.largest(self._bits)
        codes = rice.read(body[plane:], self._levels, largest - self._lowest)
        codes += self._lowest
        if (negative & (codes == 0)).any():
            raise ValueError("a zero has a sign")
        if self._bits == 1 and self._count and not self._lowest:
            raise ValueError("one bit has no level for 0")
        with np.errstate(over="ignore"):
            most = np.float64(self._scale * int(codes.max(initial=0))).astype(self._like.dtype)
        if not np.isfinite(most):
            raise ValueError(f"its scale {self._scale:g} leaves {self._like.dtype}")
        np.negative(codes, out=codes, where=negative)
        return Levels(codes.astype(np.int32), self._scale, self._bits)


def _natural(entry: dict[str, Any], key: str, most: int) -> int:
    value = entry[key]
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"its {key} is {str(value)[:30]}, expected 0 to {most}")
    return value
