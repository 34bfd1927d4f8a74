"""Loss and accuracy of virtual clients: one model for all, or one model each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from ...exceptions import InvalidInputError
from .losses import row_losses
from .results import check_start
from .task import Client, Evaluation, Task, rows_of, tensor_of

__all__ = ["accuracy_of", "evaluate_all", "evaluate_each", "load"]

#: Rows of one pass; more gain nothing.
_ROWS = 8192


def accuracy_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | None:
    """Which rows are right, bool (n,); None where the targets are no classes of (n, k) logits."""
    if outputs.ndim != 2 or targets.ndim != 1:
        return None
    if outputs.shape[1] == 1:
        whole = (targets == 0) | (targets == 1)
        return (outputs[:, 0] > 0) == (targets > 0.5) if bool(whole.all()) else None
    return None if targets.is_floating_point() else outputs.argmax(dim=1) == targets


def load(module: torch.nn.Module, state: Mapping[str, np.ndarray]) -> None:
    """Write a state into a module in place."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(tensor_of(state[name]))


def evaluate_all(
    task: Task,
    module: torch.nn.Module,
    state: Mapping[str, np.ndarray],
    clients: Sequence[Client],
    places: Sequence[int],
    device: str,
) -> list[Evaluation]:
    """One model for all: rows of many clients pass at once."""
    check_start(state, module.state_dict())
    load(module, state)
    module.eval()
    found: list[Evaluation] = []
    with torch.no_grad():
        for group in _groups(clients, places):
            parts = [clients[place] for place in group]
            x = torch.cat([rows_of(part.x, task.dtype, device) for part in parts])
            y = torch.cat([rows_of(part.y, task.dtype, device) for part in parts])
            outputs = torch.cat([module(rows) for rows in torch.split(x, _ROWS)])
            found += _of_clients(task, group, [len(part) for part in parts], outputs, y)
    module.train()
    return found


def _groups(clients: Sequence[Client], places: Sequence[int]) -> Iterator[list[int]]:
    group: list[int] = []
    rows = 0
    for place in places:
        group.append(place)
        rows += len(clients[place])
        if rows >= _ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _of_clients(
    task: Task, places: Sequence[int], sizes: Sequence[int], outputs: torch.Tensor, y: torch.Tensor
) -> list[Evaluation]:
    right = accuracy_of(outputs, y)
    losses = row_losses(task.loss, outputs, y)
    if losses is None:
        means = [
            float(task.loss(some, targets))
            for some, targets in zip(
                torch.split(outputs, list(sizes)), torch.split(y, list(sizes)), strict=True
            )
        ]
    else:
        means = _means(losses, sizes)
    shares = [None] * len(places) if right is None else _means(right, sizes)
    return [
        Evaluation(place, size, mean, share)
        for place, size, mean, share in zip(places, sizes, means, shares, strict=True)
    ]


def _means(values: torch.Tensor, sizes: Sequence[int]) -> list[float]:
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(values.cpu().numpy().astype(np.float64), starts)
    return [float(mean) for mean in sums / np.asarray(sizes)]


def evaluate_each(
    states: Sequence[Mapping[str, np.ndarray]],
    places: Sequence[int],
    one: Callable[[Mapping[str, np.ndarray], int], Evaluation],
) -> list[Evaluation]:
    """One model each.

    Raises:
        InvalidInputError: there are not as many models as clients.
    """
    if len(states) != len(places):
        raise InvalidInputError(
            f"There are {len(states)} states for {len(places)} clients; give one for each, or one "
            "state for all."
        )
    return [one(state, place) for state, place in zip(states, places, strict=True)]
