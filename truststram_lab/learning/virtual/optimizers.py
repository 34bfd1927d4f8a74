"""Optimizer steps on lists of tensors: of one client, or of many stacked in dimension 0.

All of it is element by element, so both give the same bits. What a step depends on is its number,
never its gradient: a client that has done its steps is not stepped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .task import Adam, Sgd

__all__ = ["Stepper"]


class Stepper:
    """The steps of one round from the first on; keeps velocity or moments.

    Args:
        parameters: stepped in place; ``step`` may take fewer clients, the first ``active``.
    """

    def __init__(self, optimizer: Sgd | Adam, parameters: Sequence[torch.Tensor]) -> None:
        self._optimizer = optimizer
        self._taken = 0
        keeps = 2 if isinstance(optimizer, Adam) else int(optimizer.momentum > 0)
        self._memory = [[torch.zeros_like(value) for value in parameters] for _ in range(keeps)]

    @torch.no_grad()
    def step(
        self,
        parameters: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        active: int | None = None,
    ) -> None:
        """One step of ``parameters`` by ``gradients``, of the same shapes.

        Args:
            active: how many clients of the memory, from the first, are stepped; None for all.
        """
        self._taken += 1
        for place, (weight, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            memory = [
                kept[place] if active is None else kept[place][:active] for kept in self._memory
            ]
            if isinstance(self._optimizer, Sgd):
                _sgd(self._optimizer, weight, gradient, memory, first=self._taken == 1)
            else:
                _adam(self._optimizer, weight, gradient, memory, self._taken)


def _sgd(
    how: Sgd, weight: torch.Tensor, gradient: torch.Tensor, memory: list[torch.Tensor], first: bool
) -> None:
    if how.weight_decay:
        gradient = gradient + how.weight_decay * weight
    if how.momentum:
        # The first velocity is the gradient itself, and zero times a number plus it is the same.
        speed = memory[0].copy_(gradient) if first else memory[0].mul_(how.momentum).add_(gradient)
        gradient = gradient.add(speed, alpha=how.momentum) if how.nesterov else speed
    weight.sub_(gradient, alpha=how.lr)


def _adam(
    how: Adam,
    weight: torch.Tensor,
    gradient: torch.Tensor,
    memory: list[torch.Tensor],
    taken: int,
) -> None:
    if how.weight_decay:
        if how.decoupled:
            weight.mul_(1 - how.lr * how.weight_decay)
        else:
            gradient = gradient + how.weight_decay * weight
    mean, square = memory
    first, second = how.betas
    mean.lerp_(gradient, 1 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    scale = square.sqrt().div_((1 - second**taken) ** 0.5).add_(how.eps)
    weight.addcdiv_(mean, scale, value=-how.lr / (1 - first**taken))
