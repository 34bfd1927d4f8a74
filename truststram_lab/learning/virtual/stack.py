"""Weights, rows and terms of many clients in one tensor each, clients in dimension 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...exceptions import InvalidInputError
from .draws import new_order
from .evaluation import accuracy_of
from .losses import batched_losses
from .program import Drop, Program
from .results import check_start
from .task import Client, Evaluation, Task, Work, rows_of, tensor_of

__all__ = ["Batch", "Rows", "Terms", "evaluate_stacked", "stacked"]

#: Steps of an epoch that are worked out once; where they are more, each is worked out anew.
_SHAPES_KEPT = 64


def stacked(
    states: Sequence[Mapping[str, np.ndarray]], dtype: str, device: str
) -> dict[str, torch.Tensor]:
    """name -> (C, ...), each client's to write into; floats in the task's type."""
    found: dict[str, torch.Tensor] = {}
    same = all(state is states[0] for state in states)
    for name, array in states[0].items():
        one = tensor_of(array if same else np.stack([state[name] for state in states]))
        wanted = getattr(torch, dtype) if one.is_floating_point() else one.dtype
        one = one.to(device=device, dtype=wanted)
        found[name] = one.expand(len(states), *one.shape).clone() if same else one
    return found


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's rows of the first ``len(counts)`` clients, filled up to ``width``.

    Attributes:
        x, y: (C, width, ...); what fills up is rows of the client itself.
        counts: int64 (C,), the rows that count: the first of each client's.
        used: their number, in all clients.
    """

    x: torch.Tensor
    y: torch.Tensor
    counts: np.ndarray
    width: int
    used: int

    def mean(self, losses: torch.Tensor) -> torch.Tensor:
        """The mean (C,) over the rows that count, of (C, width)."""
        if self.used == losses.numel():
            return losses.mean(dim=1)
        counts = torch.from_numpy(self.counts).to(losses.device).unsqueeze(1)
        counted = torch.arange(self.width, device=losses.device) < counts
        return (losses * counted).sum(dim=1) / counts[:, 0]

    def drop(self, generators: Sequence[torch.Generator]) -> Drop:
        """Masks for the rows that count, each client's from its own generator."""

        def masks(shape: tuple[int, ...], rate: float) -> torch.Tensor:
            drawn = torch.ones(len(self.counts), self.width, *shape)
            for place, count in enumerate(self.counts.tolist()):
                torch.rand((count, *shape), generator=generators[place], out=drawn[place, :count])
            return (drawn >= rate).to(self.x.device)

        return masks


@dataclass(frozen=True, eq=False)
class _Shape:
    """A step of some clients, without its rows: who begins an epoch, and what is taken of it.

    Attributes:
        places: (C, width), of the concatenated orders; ``first`` (C, 1) is each client's first.
    """

    beginning: list[int]
    counts: np.ndarray
    width: int
    used: int
    places: torch.Tensor
    first: torch.Tensor


class Rows:
    """The rows of a group's clients, one after the other, and each client's order in its epoch."""

    def __init__(self, clients: Sequence[Client], task: Task, device: str) -> None:
        self.sizes = [len(client) for client in clients]
        self.x = torch.cat([rows_of(client.x, task.dtype, device) for client in clients])
        self.y = torch.cat([rows_of(client.y, task.dtype, device) for client in clients])
        self._batch_size = task.batch_size
        self._sizes = np.asarray(self.sizes)
        self._batches = -(-self._sizes // task.batch_size)
        self.first = np.cumsum(self._sizes) - self._sizes
        self._order = torch.empty(int(self._sizes.sum()), dtype=torch.int64)
        self._periods: dict[int, int] = {}
        self._shapes: dict[tuple[int, int], _Shape] = {}

    def batch(self, step: int, active: int, generators: Sequence[torch.Generator]) -> Batch:
        """The batch of the first ``active`` clients; draws the orders of epochs that begin."""
        shape = self._shape(step, active)
        for client in shape.beginning:
            first, size = int(self.first[client]), self.sizes[client]
            new_order(size, generators[client], self._order[first : first + size])
        at = self._order.take(shape.places).add_(shape.first).view(-1).to(self.x.device)
        return Batch(
            self.x.index_select(0, at).view(active, shape.width, *self.x.shape[1:]),
            self.y.index_select(0, at).view(active, shape.width, *self.y.shape[1:]),
            shape.counts,
            shape.width,
            shape.used,
        )

    def _shape(self, step: int, active: int) -> _Shape:
        """Which places of the order a step takes; the same ones again after a common epoch."""
        period = self._periods.get(active)
        if period is None:
            period = self._periods[active] = math.lcm(*set(self._batches[:active].tolist()))
        if period > _SHAPES_KEPT:
            return self._new_shape(step, active)
        key = step % period, active
        found = self._shapes.get(key)
        if found is None:
            if len(self._shapes) >= _SHAPES_KEPT:
                self._shapes.clear()
            found = self._shapes[key] = self._new_shape(step, active)
        return found

    def _new_shape(self, step: int, active: int) -> _Shape:
        place = step % self._batches[:active]
        begin = place * self._batch_size
        counts = np.minimum(self._sizes[:active] - begin, self._batch_size)
        width = int(counts.max())
        within = begin[:, None] + np.arange(width)
        np.minimum(within, self._sizes[:active, None] - 1, out=within)
        first = torch.from_numpy(self.first[:active, None])
        beginning = np.flatnonzero(place == 0).tolist()
        return _Shape(
            beginning, counts, width, int(counts.sum()), torch.from_numpy(within) + first, first
        )


class Terms:
    """What strategies add to the gradients of a group: pulls and corrections.

    Args:
        weights: those to train, before the first step.
    """

    def __init__(self, works: Sequence[Work], weights: Mapping[str, torch.Tensor]) -> None:
        self._pull: torch.Tensor | None = None
        self._anchor: list[torch.Tensor] = []
        self._correction: list[torch.Tensor] | None = None
        some = next(iter(weights.values()))
        if any(work.pull for work in works):
            self._pull = torch.tensor(
                [work.pull for work in works], dtype=some.dtype, device=some.device
            )
            self._anchor = _like([work.anchor for work in works], weights, keep=True)
        if any(work.correction is not None for work in works):
            self._correction = _like([work.correction for work in works], weights, keep=False)

    @torch.no_grad()
    def add(
        self, values: Sequence[torch.Tensor], gradients: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """New gradients of the first clients, as many as there are ``values`` of."""
        active = len(values[0])
        if self._pull is not None:
            gradients = [
                g + self._pull[:active].view(-1, *[1] * (g.ndim - 1)) * (value - to[:active])
                for g, value, to in zip(gradients, values, self._anchor, strict=True)
            ]
        if self._correction is not None:
            gradients = [
                g + more[:active] for g, more in zip(gradients, self._correction, strict=True)
            ]
        return gradients


def _like(
    states: Sequence[Mapping[str, np.ndarray] | None],
    weights: Mapping[str, torch.Tensor],
    *,
    keep: bool,
) -> list[torch.Tensor]:
    """States stacked like the weights; where one is None, the weights (``keep``) or zeros."""
    found = []
    one = states[0]
    for name, value in weights.items():
        if one is not None and all(state is one for state in states):
            shared = tensor_of(one[name]).to(value.device, value.dtype)
            found.append(shared.expand(value.shape))
            continue
        stack = value.detach().clone() if keep else torch.zeros_like(value)
        for place, state in enumerate(states):
            if state is not None:
                stack[place] = tensor_of(state[name])
        found.append(stack)
    return found


def evaluate_stacked(
    task: Task,
    program: Program,
    states: Sequence[Mapping[str, np.ndarray]],
    clients: Sequence[Client],
    places: Sequence[int],
    device: str,
    chunk: int,
) -> list[Evaluation]:
    """One model for each client, those of like size at once.

    Raises:
        InvalidInputError: there are not as many models as clients, or they are not alike.
    """
    if len(states) != len(places):
        raise InvalidInputError(
            f"There are {len(states)} states for {len(places)} clients; give one for each, or one "
            "state for all."
        )
    like = task.new_module().state_dict()
    for state in states:
        check_start(state, like)
    order = sorted(range(len(places)), key=lambda at: -len(clients[places[at]]))
    found: dict[int, Evaluation] = {}
    while order:
        longest = len(clients[places[order[0]]])
        # At most twice as many rows as there are, and no more at once than a pass is good for.
        most = max(1, min(chunk, 65_536 // longest))
        group = [at for at in order[:most] if 2 * len(clients[places[at]]) >= longest]
        order = order[len(group) :]
        with torch.no_grad():
            found.update(
                zip(
                    group,
                    _evaluated(task, program, states, clients, places, device, group),
                    strict=True,
                )
            )
    return [found[at] for at in range(len(places))]


def _evaluated(
    task: Task,
    program: Program,
    states: Sequence[Mapping[str, np.ndarray]],
    clients: Sequence[Client],
    places: Sequence[int],
    device: str,
    group: Sequence[int],
) -> list[Evaluation]:
    weights = stacked([states[at] for at in group], task.dtype, device)
    parts = [clients[places[at]] for at in group]
    longest = len(parts[0])

    def filled(name: str) -> torch.Tensor:
        return torch.stack(
            [
                values[torch.arange(longest, device=device).clamp(max=len(values) - 1)]
                for values in (rows_of(getattr(part, name), task.dtype, device) for part in parts)
            ]
        )

    x, y = filled("x"), filled("y")
    outputs = program(weights, x, _no_masks)
    losses = batched_losses(task.loss, outputs, y).cpu().double().numpy()
    right = accuracy_of(outputs.flatten(0, 1), y.flatten(0, 1))
    hits = None if right is None else right.view(x.shape[:2]).cpu().numpy()
    return [
        Evaluation(
            places[at],
            len(part),
            float(losses[row, : len(part)].mean()),
            None if hits is None else float(hits[row, : len(part)].mean()),
        )
        for row, (at, part) in enumerate(zip(group, parts, strict=True))
    ]


def _no_masks(shape: tuple[int, ...], rate: float) -> torch.Tensor:
    raise AssertionError(f"Nothing drops out in prediction: {shape}, {rate}.")
