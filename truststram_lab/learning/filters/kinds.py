"""Updates as their callers have them, numpy or torch, in and out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...exceptions import InvalidInputError
from ..encodings import Compact

__all__ = ["Part", "Taken", "take", "work_dtype"]

#: One array on its way: floats in compact form, integers as they came.
Part = Compact | np.ndarray


@dataclass(frozen=True, eq=False)
class Taken:
    """An update taken from its caller.

    Attributes:
        parts: name -> floats, held in float32 or float64, or integers.
        precision: the coarsest relative distance of two neighbouring floats among the types
            that the caller's arrays have.
    """

    parts: dict[str, Part]
    precision: float
    _originals: Mapping[str, Any]

    def give_back(self, parts: Mapping[str, Part]) -> dict[str, Any]:
        """New arrays or tensors of the caller's kind, type, shape and device."""
        return {name: _restore(part, self._originals[name]) for name, part in parts.items()}


def work_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that arithmetic on arrays of ``dtype`` is done in: float64, or else float32."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def take(delta: Mapping[str, Any]) -> Taken:
    """The floats and integers of an update; nothing is copied unless its type must change.

    Raises:
        InvalidInputError: a value is no array or tensor of real numbers, or both kinds occur.
    """
    if not isinstance(delta, Mapping):
        raise InvalidInputError(
            f"delta is a {type(delta).__name__}; give a dict of name -> array or tensor.",
            field="delta",
        )
    torch = sys.modules.get("torch")
    parts: dict[str, Part] = {}
    precision = float(np.finfo(np.float64).eps)
    tensors = 0
    for name, value in delta.items():
        if torch is not None and isinstance(value, torch.Tensor):
            tensors += 1
            array, finest = _from_torch(torch, name, value)
        elif isinstance(value, np.ndarray):
            array, finest = _from_numpy(name, value)
        else:
            raise InvalidInputError(
                f"delta[{name!r}] is a {type(value).__name__}; give an array or a tensor, "
                "or leave it out.",
                field=str(name),
            )
        if tensors not in (0, len(parts) + 1):
            raise InvalidInputError(
                f"delta has arrays and tensors ({name!r} is the first to differ); give one kind.",
                field=str(name),
            )
        parts[name] = array
        precision = max(precision, finest)
    return Taken(parts, precision, delta)


def _from_numpy(name: str, value: np.ndarray) -> tuple[Part, float]:
    if value.dtype.kind in "iub":
        return value, 0.0
    if value.dtype.kind != "f" or value.dtype.itemsize > 8:
        raise _no_floats(name, value.dtype)
    dtype = value.dtype.newbyteorder("=")
    flat = np.ascontiguousarray(value).reshape(-1).astype(work_dtype(dtype), copy=False)
    return Compact(value.shape, dtype, None, flat), float(np.finfo(dtype).eps)


def _from_torch(torch: Any, name: str, value: Any) -> tuple[Part, float]:
    if value.layout != torch.strided or value.is_complex() or value.is_quantized:
        raise _no_floats(name, f"{value.dtype}, {value.layout}")
    plain = value.detach().cpu()
    if not plain.is_floating_point():
        return np.asarray(plain.numpy()), 0.0
    precision = float(torch.finfo(value.dtype).eps)
    # numpy has no bfloat16: such values travel, and are worked on, as float32.
    if plain.dtype not in (torch.float16, torch.float32, torch.float64):
        plain = plain.float()
    part, _ = _from_numpy(name, plain.numpy())
    return part, precision


def _no_floats(name: str, found: object) -> InvalidInputError:
    return InvalidInputError(
        f"delta[{name!r}] has type {found}; convert it to dense float32 or float64.",
        field=str(name),
    )


def _restore(part: Part, original: Any) -> Any:
    array = part.dense() if isinstance(part, Compact) else part.copy()
    if isinstance(original, np.ndarray):
        return array.astype(original.dtype, copy=False)
    torch = sys.modules["torch"]
    return torch.from_numpy(array).to(device=original.device, dtype=original.dtype)
