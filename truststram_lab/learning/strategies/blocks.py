"""What the strategies share: walking through arrays in blocks, and the last addition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ...exceptions import InvalidInputError
from ..weights import State

__all__ = ["BLOCK", "add_to", "is_count", "kept_type", "like", "spans", "to_type"]

#: Numbers in a block: in float64 a quarter of a megabyte, which stays in a core's cache.
BLOCK = 2**15


def spans(size: int, step: int = BLOCK) -> Iterator[slice]:
    """Slices of at most ``step`` that together are ``[0, size)``."""
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def is_count(array: np.ndarray) -> bool:
    """Whether the array holds whole numbers, such as BatchNorm's ``num_batches_tracked``.

    They are no weights: they take part in no norm, distance, momentum or control variate.
    They get the rule's own mean or median, rounded to the nearest whole number.
    """
    return array.dtype.kind in "iub"


def kept_type(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The type in which the platform keeps a weight's moments: the weight's, at least float32."""
    return np.result_type(dtype, np.float32)


def like(state: Mapping[str, np.ndarray]) -> State:
    """Names, shapes and types of ``state`` without its values; takes no memory."""
    return {
        name: np.broadcast_to(np.zeros((), array.dtype), array.shape)
        for name, array in state.items()
    }


def to_type(values: np.ndarray, dtype: np.dtype[np.generic], name: str) -> np.ndarray:
    """``values`` (float64) in ``dtype``, rounded to the nearest, whole numbers half to even.

    Raises:
        InvalidInputError: a value has no place in ``dtype``; the message names the array.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded: np.ndarray = values.astype(dtype)
        if not np.isfinite(rounded).all():
            raise InvalidInputError(
                f"Array {name!r} is no longer finite after this round; start again with a lower "
                "learning rate, of the sites or of the platform.",
                field=name,
            )
        return rounded
    whole = np.rint(values)
    bits = 1 if dtype.kind == "b" else 8 * dtype.itemsize - (dtype.kind == "i")
    # float64 holds whole numbers up to 2**53 exactly; beyond, a count would silently change.
    high = min(2**bits - 1, 2**53)
    low = max(-(2**bits), -(2**53)) if dtype.kind == "i" else 0
    if not np.all((whole >= low) & (whole <= high)):
        raise InvalidInputError(
            f"Array {name!r} of whole numbers would leave {low} to {high}; keep it out of the "
            "update, or send it as float64.",
            field=name,
        )
    counts: np.ndarray = whole.astype(dtype)
    return counts


def add_to(base: Mapping[str, np.ndarray], change: State) -> State:
    """``base + change``; the sum takes the place of ``change``, whose memory it uses.

    Added in float64 and rounded once, as ``weights.apply`` does: the same bits.

    Args:
        base: the global model, unchanged.
        change: contiguous arrays of the same names, shapes and types, given away.

    Raises:
        InvalidInputError: a sum is not finite, or a count leaves its type.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        for name, array in change.items():
            flat, start = array.reshape(-1), base[name].reshape(-1)
            for part in spans(flat.size):
                total = start[part].astype(np.float64)
                total += flat[part]
                flat[part] = to_type(total, array.dtype, name)
    return change
