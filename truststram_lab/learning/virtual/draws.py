"""What a client draws in a round: batch order and dropout masks, the same for both trainers.

One generator per client and round, on the CPU: a new order at the start of every epoch, then the
masks of every batch, layer by layer, as ``learning.training.train`` draws them. Fewer steps draw
the beginning of the same stream. Dropout is caught where it is called, so that a module's own
draws from torch's global generator never happen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    #: (input, rate) -> the input with a mask applied
    Drop = Callable[[torch.Tensor, float], torch.Tensor]

__all__ = [
    "DrawnDropout",
    "NoRule",
    "batch_of",
    "dropout_shapes",
    "dropped",
    "mask_of",
    "new_order",
]


def new_order(
    rows: int, generator: torch.Generator, out: torch.Tensor | None = None
) -> torch.Tensor:
    """The order of an epoch, int64 (rows,), written into ``out`` where there is one."""
    return torch.randperm(rows, generator=generator, out=out)


def batch_of(order: torch.Tensor, step: int, batch_size: int) -> torch.Tensor:
    """The rows of a step: step modulo the batches of an epoch."""
    place = step % -(-len(order) // batch_size) * batch_size
    return order[place : place + batch_size]


def mask_of(shape: torch.Size, rate: float, generator: torch.Generator) -> torch.Tensor:
    """Which values stay, bool."""
    return torch.rand(shape, generator=generator) >= rate


class NoRule(Exception):
    """A module does something that clients cannot do at once; they train one after another."""


class DrawnDropout(TorchFunctionMode):
    """Inside it, dropout of a module in training is what ``drop`` says.

    Raises:
        NoRule: the module calls another kind of dropout (of channels, of alpha).
    """

    _OTHERS = frozenset(
        getattr(functional, name)
        for name in (
            "dropout1d",
            "dropout2d",
            "dropout3d",
            "alpha_dropout",
            "feature_alpha_dropout",
            "rrelu",
        )
    )

    def __init__(self, drop: Drop) -> None:
        super().__init__()
        self._drop = drop

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout:
            x, rate, training = _dropout_arguments(*args, **kwargs)
            return self._drop(x, rate) if training and rate else x
        if func in self._OTHERS and kwargs.get("training", True):
            raise NoRule(func.__name__)
        return func(*args, **kwargs)


def _dropout_arguments(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001
) -> tuple[torch.Tensor, float, bool]:
    return input, p, training


def dropped(x: torch.Tensor, kept: torch.Tensor, rate: float) -> torch.Tensor:
    """Inverted dropout: survivors grow, so that prediction needs no correction."""
    return x * kept.to(x.device, x.dtype) / (1.0 - rate)


def dropout_shapes(module: torch.nn.Module, x: torch.Tensor) -> list[tuple[tuple[int, ...], float]]:
    """The dropouts of a pass in the order of their calls: shape of one row's mask, and rate."""
    found: list[tuple[tuple[int, ...], float]] = []

    def note(value: torch.Tensor, rate: float) -> torch.Tensor:
        found.append((tuple(value.shape[1:]), rate))
        return value

    with torch.no_grad(), DrawnDropout(note):
        module(x)
    return found
