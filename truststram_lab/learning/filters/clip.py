"""The norm of an update, and the bound on it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...exceptions import UpdateRejectedError
from ..encodings import Compact, Levels
from .kinds import Part, work_dtype

__all__ = ["clip", "l2_norm"]

#: Values squared at a time: what they pass through fits a processor's cache.
_CHUNK = 1 << 15


def l2_norm(parts: Mapping[str, Part]) -> float:
    """The L2 norm over all floats of an update, summed in float64; integers do not count.

    Raises:
        UpdateRejectedError: a value is not finite; the message names the array.
    """
    return math.sqrt(math.fsum(_norm(name, part) ** 2 for name, part in parts.items()))


def _norm(name: str, part: Part) -> float:
    if not isinstance(part, Compact):
        return 0.0
    values = part.floats(work_dtype(part.dtype))
    # Squares of float64 can overflow where the norm does not; those of float32 cannot.
    with np.errstate(over="ignore"):
        norm = math.sqrt(_squares(values))
    if math.isfinite(norm) and norm < 1e150:
        return norm
    finite = np.isfinite(values)
    if not finite.all():
        raise UpdateRejectedError(
            f"Array {name!r} has {values.size - int(finite.sum())} values of {values.size} that "
            "are not finite; train again with a lower learning rate.",
            field=name,
        )
    raise UpdateRejectedError(
        f"Array {name!r} has values up to {float(np.abs(values).max()):.3g}, too large to take a "
        "norm of; train again with a lower learning rate.",
        field=name,
    )


def _squares(values: np.ndarray) -> float:
    total = 0.0
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK].astype(np.float64, copy=False)
        total += float(part @ part)
    return total


def clip(
    parts: Mapping[str, Part],
    max_norm: float,
    *,
    per_tensor: bool,
    precision: float,
    norm: float | None = None,
) -> dict[str, Part]:
    """Scale an update so that its L2 norm is at most ``max_norm``; a smaller one is unchanged.

    Args:
        parts: arrays of any shapes; integers pass as they are.
        max_norm: positive, in the unit of the weights.
        per_tensor: bound the norm of every array by itself instead of the norm of all.
        precision: relative rounding of the values when they are sent; the factor is smaller by
            twice as much, so that the norm holds for what is sent, and not nearly.
        norm: of all, where it is known already.

    Raises:
        UpdateRejectedError: a value is not finite.

    McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models",
    algorithm 1 (flat clipping; per layer is its other choice).
    https://arxiv.org/abs/1710.06963
    """
    if per_tensor:
        return {
            name: _scaled(part, _factor(_norm(name, part), max_norm, precision))
            for name, part in parts.items()
        }
    factor = _factor(l2_norm(parts) if norm is None else norm, max_norm, precision)
    return {name: _scaled(part, factor) for name, part in parts.items()}


def _factor(norm: float, max_norm: float, precision: float) -> float:
    return 1.0 if norm <= max_norm else max_norm / norm * (1.0 - 2.0 * precision)


def _scaled(part: Part, factor: float) -> Part:
    if factor == 1.0 or not isinstance(part, Compact):
        return part
    levels = part.levels
    if levels is not None:
        scaled: np.ndarray | Levels = Levels(levels.codes, levels.scale * factor, levels.bits)
    else:
        values = part.floats(work_dtype(part.dtype))
        scaled = values * values.dtype.type(factor)
    small = Compact(part.shape, part.dtype, part.indices, scaled)
    return _toward_zero(small) if part.dtype == np.float16 else small


def _toward_zero(part: Compact) -> Compact:
    # The smallest float16 lie so far apart that rounding up could carry the norm over its bound.
    wide = part.floats(np.dtype(np.float32))
    sent = wide.astype(np.float16)
    sent = np.where(np.abs(sent) > np.abs(wide), np.nextafter(sent, np.float16(0)), sent)
    return Compact(part.shape, part.dtype, part.indices, sent.astype(np.float32))
