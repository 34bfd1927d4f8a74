"""Writing an update: safetensors, with what filters made small beside what stayed whole.

An update without sparse or quantised arrays is the same file as ``weights.encode`` writes. With
them, the file has one more array of bytes, ``PACKED``, in which their parts follow each other,
and one more text in its metadata, ``DESCRIPTION``, which says what the parts are::

    [{"name": "layers.0.weight", "dtype": "F32", "shape": [64, 30],
      "count": 20, "gap_width": 6, "gap_unary": 5,       which coordinates (absent: all)
      "bits": 8, "scale": 0.002, "lowest": 61,           how coarse (absent: plain floats)
      "level_width": 3, "level_unary": 4}, ...]

Of each array: the gaps between its coordinates as a Rice code, then the values: little-endian
floats, or a plane of signs and the codes' sizes above ``lowest`` as a Rice code. Equal updates
give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...exceptions import InvalidInputError
from ...schemas.filters import SentField
from .. import weights
from . import rice
from .compact import Compact, Levels, compact

__all__ = ["DESCRIPTION", "DTYPES", "PACKED", "Encoded", "encode", "size_bytes"]

DESCRIPTION = "truststram.packed"
PACKED = "truststram.packed"
DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Encoded:
    """An update as it is sent.

    Attributes:
        body: the file.
        sizes: array by array in the update's order, what it was and what it takes.
        header_bytes: what the names, shapes and metadata take; with the arrays, all of ``body``.
    """

    body: bytes
    sizes: tuple[SentField, ...]
    header_bytes: int


def encode(
    update: Mapping[str, np.ndarray | Compact], metadata: Mapping[str, str] | None = None
) -> Encoded:
    """Write ``update``; ``decode`` gives back the same arrays, bit for bit.

    A plain array of floats is written without its zeros where at least half of it is zero.

    Args:
        update: name -> array of floats or integers, or what ``run_filters`` left of one.
        metadata: short texts that travel in the header.

    Raises:
        InvalidInputError: a name or type that the format does not carry.
        UpdateRejectedError: a value does not fit into its array's type.
    """
    for name in (PACKED, DESCRIPTION):
        if name in update or name in (metadata or {}):
            raise InvalidInputError(
                f"The name {name!r} is the format's own; rename the array or text.", field=name
            )
    whole: dict[str, np.ndarray] = {}
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    sizes: list[SentField] = []
    for name, array in update.items():
        small = compact(array) if isinstance(array, np.ndarray) and _is_float(array) else array
        sizes.append(_sent(name, small))
        if isinstance(small, np.ndarray):
            whole[name] = small
        elif small.indices is None and small.levels is None:
            whole[name] = small.floats().reshape(small.shape)
        else:
            described.append(_describe(name, small))
            parts += _parts(small)
    texts = dict(metadata or {})
    if described:
        _check_names([entry["name"] for entry in described])
        whole[PACKED] = np.frombuffer(b"".join(parts), np.uint8)
        texts[DESCRIPTION] = json.dumps(described, separators=(",", ":"), ensure_ascii=False)
    body = weights.encode(whole, texts)
    return Encoded(body, tuple(sizes), len(body) - sum(size.bytes_after for size in sizes))


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.newbyteorder("<") in _CODES


def _check_names(names: list[str]) -> None:
    # The rules of the file hold for the arrays inside the packed one, too.
    weights.encode({name: np.empty(0, np.uint8) for name in names})


def size_bytes(array: np.ndarray | Compact) -> int:
    """The bytes that an array takes in a file, without its line in the header."""
    if isinstance(array, np.ndarray):
        return array.nbytes
    size = array.gap_code.size_bytes if array.indices is not None else 0
    if array.levels is None:
        return size + array.kept * array.dtype.itemsize
    return size + (array.kept + 7) // 8 + array.levels.code.size_bytes


def _sent(name: str, array: np.ndarray | Compact) -> SentField:
    form: Literal["dense", "sparse", "quantised", "sparse quantised"] = "dense"
    if isinstance(array, Compact):
        if array.levels is not None:
            form = "quantised" if array.indices is None else "sparse quantised"
        elif array.indices is not None:
            form = "sparse"
    return SentField(
        name=name,
        form=form,
        coordinates=array.size,
        kept=array.size if isinstance(array, np.ndarray) else array.kept,
        bytes_before=array.size * array.dtype.itemsize,
        bytes_after=size_bytes(array),
    )


def _describe(name: str, array: Compact) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": name,
        "dtype": _CODES[array.dtype.newbyteorder("<")],
        "shape": list(array.shape),
    }
    if array.indices is not None:
        entry |= {
            "count": array.kept,
            "gap_width": array.gap_code.width,
            "gap_unary": array.gap_code.unary_bytes,
        }
    if array.levels is not None:
        entry |= {
            "bits": array.levels.bits,
            "scale": array.levels.scale,
            "lowest": array.levels.lowest,
            "level_width": array.levels.code.width,
            "level_unary": array.levels.code.unary_bytes,
        }
    return entry


def _parts(array: Compact) -> list[bytes]:
    parts: list[bytes] = []
    if array.indices is not None:
        parts.append(rice.write(array.gaps, array.gap_code))
    if isinstance(array.values, Levels):
        parts.append(rice.pack_signs(array.values.codes < 0))
        parts.append(rice.write(array.values.magnitudes, array.values.code))
    else:
        parts.append(array.floats().astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return parts
