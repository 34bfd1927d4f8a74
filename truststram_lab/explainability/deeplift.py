"""DeepLIFT with the Rescale rule, for the networks this project builds, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from truststram_lab.exceptions import InvalidInputError

from .interfaces import DenseLike, Floats

__all__ = ["deeplift_rescale"]


def _sigmoid(z: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * z))


@dataclass(frozen=True)
class _Activation:
    """A function, its derivative, and the |delta-in| below which their quotient loses digits."""

    function: Callable[[Floats], Floats]
    derivative: Callable[[Floats], Floats]
    tiny: float


# For |d| < 1e-5 the derivative at the middle is within d**2 / 12 of the quotient, which
# itself would be off by 1e-16 / d. The relu's quotient is exact however small d is.
_ACTIVATIONS = {
    "identity": _Activation(lambda z: z, np.ones_like, np.inf),
    "relu": _Activation(
        lambda z: np.maximum(z, 0.0), lambda z: np.asarray(z > 0, dtype=np.float64), 0.0
    ),
    "tanh": _Activation(np.tanh, lambda z: 1.0 - np.tanh(z) ** 2, 1e-5),
    "sigmoid": _Activation(_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z), 1e-5),
}


def deeplift_rescale(
    layers: Sequence[DenseLike], rows: Floats, baseline: Floats, readout: Floats
) -> Floats:
    """Contributions of every network input to ``logits @ readout``, relative to a baseline.

    Args:
        layers: dense layers in order; activations identity, relu, tanh or sigmoid.
        rows: encoded rows, (n, inputs).
        baseline: the reference input, (inputs,).
        readout: (n, outputs), what is explained of each row's logits.

    Returns:
        float64 (n, inputs); a row sums to its output minus the baseline's, up to rounding.

    Raises:
        InvalidInputError: a layer has another activation.

    Shrikumar, Greenside & Kundaje 2017, "Learning Important Features Through Propagating
    Activation Differences": the chain rule for multipliers (section 3.2), the linear rule
    (3.5.1) and the Rescale rule (3.5.2); where delta-in vanishes, its limit, the derivative.
    https://arxiv.org/abs/1704.02685
    """
    weights = [np.asarray(layer.weight, dtype=np.float64) for layer in layers]
    slopes: list[Floats] = []
    x, x0 = np.asarray(rows, dtype=np.float64), np.asarray(baseline, dtype=np.float64)[None]
    for layer, weight in zip(layers, weights, strict=True):
        activation = _activation(layer.activation)
        bias = np.asarray(layer.bias, dtype=np.float64)
        z, z0 = x @ weight.T + bias, x0 @ weight.T + bias
        x, x0 = activation.function(z), activation.function(z0)
        slopes.append(_slope(activation, z, z0, x, x0))

    multipliers = np.asarray(readout, dtype=np.float64)
    for weight, slope in zip(reversed(weights), reversed(slopes), strict=True):
        multipliers = (multipliers * slope) @ weight
    return multipliers * (rows - baseline)


def _slope(activation: _Activation, z: Floats, z0: Floats, a: Floats, a0: Floats) -> Floats:
    change = z - z0
    small = np.abs(change) <= activation.tiny
    quotient = (a - a0) / np.where(small, 1.0, change)
    return np.where(small, activation.derivative(0.5 * (z + z0)), quotient)


def _activation(name: str) -> _Activation:
    try:
        return _ACTIVATIONS[name]
    except KeyError:
        raise InvalidInputError(
            f"DeepLIFT has no rule here for the activation {name!r}; use one of "
            f"{', '.join(_ACTIVATIONS)}.",
            field="activation",
            choices=list(_ACTIVATIONS),
        ) from None
