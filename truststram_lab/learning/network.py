"""The network in prediction: numpy only, in float64, the same numbers on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..exceptions import InvalidInputError
from ..schemas.registry import Architecture, DenseLayer
from ..schemas.tables import Signature
from .weights import check_update

__all__ = ["Dense", "Network", "activate", "check_state", "expected_shapes", "sigmoid", "softmax"]


@dataclass(frozen=True)
class Dense:
    """``activation(x @ weight.T + bias)`` with weight (units, inputs) and bias (units,)."""

    weight: np.ndarray
    bias: np.ndarray
    activation: str

    def affine(self, x: np.ndarray) -> np.ndarray:
        """The layer before its activation: (n, inputs) -> (n, units)."""
        out: np.ndarray = x @ self.weight.T + self.bias
        return out

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The layer: (n, inputs) -> (n, units)."""
        return activate(self.activation, self.affine(x))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``, element by element, without overflow for any finite ``x``."""
    # exp only ever sees non-positive numbers.
    small = np.exp(-np.abs(x))
    out: np.ndarray = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return out


def softmax(x: np.ndarray) -> np.ndarray:
    """``exp(x) / sum(exp(x))`` over the last axis, without overflow for any finite ``x``."""
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    out: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return out


def activate(name: str, x: np.ndarray) -> np.ndarray:
    """Apply the activation ``name`` (identity, relu, tanh or sigmoid) element by element."""
    if name == "relu":
        rectified: np.ndarray = np.maximum(x, 0.0)
        return rectified
    if name == "tanh":
        bent: np.ndarray = np.tanh(x)
        return bent
    if name == "sigmoid":
        return sigmoid(x)
    return x


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of the architecture, in the order of its layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = architecture.inputs
    for place, layer in enumerate(architecture.layers):
        if isinstance(layer, DenseLayer):
            shapes[f"layers.{place}.weight"] = (layer.units, width)
            shapes[f"layers.{place}.bias"] = (layer.units,)
            width = layer.units
    return shapes


def check_state(state: Mapping[str, np.ndarray], architecture: Architecture) -> None:
    """Refuse weights that are not those of the architecture.

    Raises:
        UpdateRejectedError: a weight is missing, unknown, misshapen, no float or not finite.
    """
    like = {
        # Any float type will do, so each array is compared with its own.
        name: np.broadcast_to(np.zeros((), _float_type(state.get(name))), shape)
        for name, shape in expected_shapes(architecture).items()
    }
    check_update(state, like)


def _float_type(array: np.ndarray | None) -> np.dtype[Any]:
    if array is not None and array.dtype.kind == "f":
        return array.dtype
    return np.dtype(np.float32)


class Network:
    """A feed-forward network with its weights, for prediction.

    Args:
        architecture: how it is built; dropout does nothing here.
        state: its weights, named as ``expected_shapes`` says, of any float type.
        signature: what its outputs mean; without one, a single output is the log-odds of
            the second of two classes.

    Raises:
        UpdateRejectedError: ``check_state`` refuses the weights.
        InvalidInputError: the outputs do not fit the signature's classes.
    """

    def __init__(
        self,
        architecture: Architecture,
        state: Mapping[str, np.ndarray],
        signature: Signature | None = None,
    ) -> None:
        check_state(state, architecture)
        self.architecture = architecture
        self.layers = [
            Dense(
                state[f"layers.{place}.weight"].astype(np.float64),
                state[f"layers.{place}.bias"].astype(np.float64),
                layer.activation,
            )
            for place, layer in enumerate(architecture.layers)
            if isinstance(layer, DenseLayer)
        ]
        self.inputs = architecture.inputs
        self.outputs = len(self.layers[-1].bias) if self.layers else architecture.inputs
        self._positive = 1 if signature is None else _positive_place(signature, self.outputs)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Encoded rows (n, inputs) -> logits (n, outputs), float64.

        Raises:
            InvalidInputError: ``x`` has another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise InvalidInputError(
                f"The rows have shape {x.shape}, but the network takes (n, {self.inputs}); "
                "encode them with TableEncoder."
            )
        hidden = x.astype(np.float64, copy=False)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Encoded rows (n, inputs) -> probabilities (n, classes), in the signature's order."""
        logits = self.logits(x)
        if self.outputs > 1:
            return softmax(logits)
        both = np.empty((len(x), 2))
        # 1 - p would lose the digits of a certain answer; the other side is sigmoid(-x).
        both[:, self._positive] = sigmoid(logits[:, 0])
        both[:, 1 - self._positive] = sigmoid(-logits[:, 0])
        return both


def _positive_place(signature: Signature, outputs: int) -> int:
    """The place of the positive class, after checking that the outputs fit the classes."""
    expected = 1 if signature.positive_class is not None else len(signature.classes)
    if outputs != expected:
        raise InvalidInputError(
            f"The network has {outputs} outputs, but the classes {', '.join(signature.classes)} "
            f"need {expected}; change the units of the last layer.",
            field="architecture",
        )
    if signature.positive_class is None:
        return 1
    if len(signature.classes) != 2 or signature.positive_class not in signature.classes:
        raise InvalidInputError(
            f"{signature.positive_class!r} cannot be the positive class of "
            f"{', '.join(signature.classes)}; it must be one of two.",
            field="positive_class",
        )
    return signature.classes.index(signature.positive_class)
