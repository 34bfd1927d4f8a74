"""Model weights as named arrays, and as safetensors files.

The file format is safetensors (https://github.com/huggingface/safetensors): eight bytes with
the header's length, a JSON header, the arrays. It is written and read here, not by the
library, for two reasons: equal weights must give equal bytes (the library orders metadata by
a randomised hash), and a participant's file is hostile until every number in it was checked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ..exceptions import InvalidInputError, UpdateRejectedError, nearest

__all__ = [
    "State",
    "all_finite",
    "apply",
    "check_update",
    "decode",
    "delta",
    "encode",
    "pieces",
    "sha256_hex",
]

#: name -> array, in the order of the network's layers
State: TypeAlias = dict[str, np.ndarray]

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("<i1"),
    "U8": np.dtype("<u1"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

_PREFIX_BYTES = 8
#: A header names arrays, it does not hold them: tens of thousands of names fit.
_MAX_HEADER_BYTES = 4 * 2**20
_MAX_NAME_CHARACTERS = 200
_MAX_DIMENSIONS = 32
#: numbers that are looked at together
_LOOK = 2**15


def sha256_hex(body: bytes) -> str:
    """The sha256 of ``body`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


def encode(state: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """Write ``state`` as a safetensors file; equal input gives equal bytes.

    Args:
        state: name -> array of any shape; floats, or integers of up to 64 bits.
        metadata: short texts that travel in the header.

    Raises:
        InvalidInputError: an array has a type that the format does not carry.
    """
    return b"".join(pieces(state, metadata))


def pieces(
    state: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """What ``encode`` joins; the arrays' own memory where that is the file's form already.

    Raises:
        InvalidInputError: an array has a type that the format does not carry.
    """
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = {key: metadata[key] for key in sorted(metadata)}
    offsets, ordered = _layout(state)
    for name, array in state.items():
        header[name] = {
            "dtype": _CODES[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": offsets[name],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Padding with spaces keeps the arrays aligned to eight bytes.
    text += b" " * (-len(text) % 8)
    little = (
        state[name].astype(state[name].dtype.newbyteorder("<"), copy=False) for name in ordered
    )
    return [
        len(text).to_bytes(8, "little") + text,
        *(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in little),
    ]


def _layout(state: Mapping[str, np.ndarray]) -> tuple[dict[str, list[int]], list[str]]:
    for name, array in state.items():
        if array.dtype.newbyteorder("<") not in _CODES:
            raise InvalidInputError(
                f"Array {name!r} has type {array.dtype}, which cannot be stored; "
                "convert it to float32 or float64.",
                field=name,
            )
        if name == "__metadata__" or not name.isprintable() or len(name) > _MAX_NAME_CHARACTERS:
            raise InvalidInputError(
                f"{name!r:.60} is no name for an array; take one of up to {_MAX_NAME_CHARACTERS} "
                "printable characters, other than __metadata__.",
            )
    # Wide types first: then every array starts at a multiple of its own width.
    ordered = sorted(state, key=lambda name: -state[name].dtype.itemsize)
    offsets: dict[str, list[int]] = {}
    start = 0
    for name in ordered:
        offsets[name] = [start, start + state[name].nbytes]
        start += state[name].nbytes
    return offsets, ordered


def decode(body: bytes | memoryview) -> tuple[State, dict[str, str]]:
    """Read a safetensors file: the arrays, in the header's order, and its metadata.

    The arrays are read-only views into ``body``; nothing is copied.

    Raises:
        UpdateRejectedError: the bytes are not a well-formed file, for whatever reason.
    """
    header = _header(body)
    metadata = _metadata(header.pop("__metadata__", {}))
    data = memoryview(body)[_PREFIX_BYTES + int.from_bytes(body[:_PREFIX_BYTES], "little") :]
    state: State = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        dtype, shape, start, end = _entry(name, entry, len(data))
        try:
            state[name] = np.frombuffer(data[start:end], dtype=dtype).reshape(shape)
        except (ValueError, OverflowError) as error:
            raise _reject(f"array {name!r} has the impossible shape {shape}") from error
        spans.append((start, end, name))
    _check_spans(spans, len(data))
    return state, metadata


def _reject(fact: str) -> UpdateRejectedError:
    return UpdateRejectedError(
        f"The file is not well-formed safetensors: {fact}; write it with "
        "truststram_lab.learning.weights.encode."
    )


def _header(body: bytes | memoryview) -> dict[str, Any]:
    if len(body) < _PREFIX_BYTES:
        raise _reject(f"it has {len(body)} bytes, and the header's length alone takes 8")
    size = int.from_bytes(body[:_PREFIX_BYTES], "little")
    if size > min(len(body) - _PREFIX_BYTES, _MAX_HEADER_BYTES):
        raise _reject(f"its header claims {size} bytes, but {len(body) - _PREFIX_BYTES} follow")
    try:
        header = json.loads(
            bytes(body[_PREFIX_BYTES : _PREFIX_BYTES + size]).decode("utf-8"),
            object_pairs_hook=_without_duplicates,
        )
    except (ValueError, RecursionError) as error:
        raise _reject("its header is not JSON with unique names") from error
    if not isinstance(header, dict):
        raise _reject("its header is not a JSON object")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _metadata(found: object) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _reject("its metadata is not a mapping of texts")
    try:
        "".join([*found, *found.values()]).encode()
    except UnicodeEncodeError as error:
        raise _reject("its metadata has half of a character") from error
    return found


def _entry(
    name: str, entry: object, available: int
) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    # Names end up in messages and logs, so they must be ones that can be printed.
    if not name.isprintable() or len(name) > _MAX_NAME_CHARACTERS:
        raise _reject(f"an array's name is not {_MAX_NAME_CHARACTERS} printable characters or less")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _reject(f"array {name!r} needs exactly dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise _reject(
            f"array {name!r} has type {str(code)[:20]!r}, not one of {', '.join(_DTYPES)}"
        )
    if not _naturals(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _reject(f"array {name!r} has no list of at most {_MAX_DIMENSIONS} lengths as shape")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _reject(f"array {name!r} has no two offsets")
    start, end = offsets
    dtype = _DTYPES[code]
    if not start <= end <= available:
        raise _reject(f"array {name!r} lies outside the file")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise _reject(f"array {name!r} has {end - start} bytes, which its shape does not fill")
    return dtype, tuple(shape), start, end


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_spans(spans: list[tuple[int, int, str]], available: int) -> None:
    # The format allows neither holes nor overlaps: a hole could smuggle bytes past a review.
    at = 0
    for start, end, name in sorted(spans):
        if start != at:
            raise _reject(f"array {name!r} starts at byte {start} instead of {at}")
        at = end
    if at != available:
        raise _reject(f"{available - at} bytes belong to no array")


def delta(base: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> State:
    """What training changed: ``new - base``, array by array, in the type of ``base``.

    Raises:
        UpdateRejectedError: the two do not have the same names and shapes.
    """
    _check_layout(new, base)
    return {name: new[name].astype(base[name].dtype) - base[name] for name in base}


def apply(base: Mapping[str, np.ndarray], change: Mapping[str, np.ndarray]) -> State:
    """``base + change``, array by array: ``apply(base, delta(base, new))`` is ``new``.

    Added in float64 and rounded once to the type of ``base``.

    Raises:
        UpdateRejectedError: the two do not have the same names and shapes.
    """
    _check_layout(change, base)
    return {
        name: np.add(base[name], change[name], dtype=np.float64).astype(base[name].dtype)
        for name in base
    }


def check_update(update: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> None:
    """Refuse an update that could not be added to ``like``.

    Raises:
        UpdateRejectedError: an array is missing, unknown, of another shape or type, or has
            a value that is not finite; the message names it.
    """
    _check_layout(update, like)
    for name, array in update.items():
        if array.dtype != like[name].dtype:
            raise UpdateRejectedError(
                f"Array {name!r} has type {array.dtype}, expected {like[name].dtype}; "
                "send the type of the global model.",
                field=name,
            )
        if not all_finite(array):
            wrong = array.size - int(np.isfinite(array).sum())
            raise UpdateRejectedError(
                f"Array {name!r} has {wrong} values of {array.size} that "
                "are not finite; train again with a lower learning rate.",
                field=name,
            )


def all_finite(array: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; looks at parts that stay in a core's cache."""
    if array.dtype.kind in "iub":
        return True
    flat = array.reshape(-1)
    return all(bool(np.isfinite(flat[at : at + _LOOK]).all()) for at in range(0, flat.size, _LOOK))


def _check_layout(update: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> None:
    for name in like:
        if name not in update:
            raise UpdateRejectedError(
                f"Array {name!r} is missing; send all of the global model's {len(like)} arrays.",
                field=name,
            )
    for name, array in update.items():
        if name not in like:
            close = nearest(name, like)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(like)}."
            raise UpdateRejectedError(
                f"Array {name!r} is not in the global model; {hint}", field=name, choices=close
            )
        if array.shape != like[name].shape:
            raise UpdateRejectedError(
                f"Array {name!r} has shape {array.shape}, expected {like[name].shape}; "
                "train the round's own global model.",
                field=name,
            )
