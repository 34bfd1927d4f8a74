"""From trained weights to what a client sends: both trainers end here, so both say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ...exceptions import InvalidInputError
from ..weights import State
from .task import Task, Trained, Work

__all__ = ["check_start", "results"]


def check_start(state: Mapping[str, np.ndarray], like: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are not the module's.

    Raises:
        InvalidInputError: a name or shape differs; the message says which.
    """
    odd = sorted(state.keys() ^ like.keys())
    if odd:
        where = "the module has none" if odd[0] in state else "is missing"
        raise InvalidInputError(
            f"The weights and the module differ in {odd[0]!r}: it {where}; the module's weights "
            f"are {', '.join(like)}.",
            field=odd[0],
        )
    for name, value in like.items():
        if state[name].shape != tuple(value.shape):
            raise InvalidInputError(
                f"The weights {name!r} have shape {state[name].shape}, but the module's have "
                f"{tuple(value.shape)}.",
                field=name,
            )


def results(
    task: Task,
    works: Sequence[Work],
    start: Mapping[str, np.ndarray],
    trained: Mapping[str, np.ndarray],
    samples: Sequence[int],
    losses: Sequence[np.ndarray],
    batch_rows: Sequence[np.ndarray],
) -> list[Trained]:
    """The results of works whose weights are stacked in dimension 0 of ``trained``.

    Args:
        losses: of each work's steps, as ``Trained.losses``.
        batch_rows: rows of each step's batch.

    Raises:
        InvalidInputError: a client's training diverged.
    """
    deltas: State = {}
    finite = np.array([bool(np.isfinite(found).all()) for found in losses])
    for name, stack in trained.items():
        own = [work.start for work in works]
        if any(state is not None for state in own):
            base = np.stack([(start if state is None else state)[name] for state in own])
        else:
            base = start[name][None]
        deltas[name] = stack.astype(base.dtype, copy=False) - base
        if deltas[name].dtype.kind == "f":
            finite &= np.isfinite(deltas[name]).reshape(len(works), -1).all(axis=1)
    if not finite.all():
        _refuse(task, works[int(np.flatnonzero(~finite)[0])].client)
    _clip(deltas, works)
    return [
        Trained(
            client=work.client,
            delta={name: stack[place] for name, stack in deltas.items()},
            samples=samples[place],
            steps=len(losses[place]),
            loss=_last_epoch(task, work, samples[place], losses[place], batch_rows[place]),
            losses=losses[place],
        )
        for place, work in enumerate(works)
    ]


def _last_epoch(
    task: Task, work: Work, samples: int, losses: np.ndarray, rows: np.ndarray
) -> float:
    # Under DP-SGD every step samples anew: there is no epoch, all steps count.
    last = len(losses) if work.private is not None else -(-samples // task.batch_size)
    weights = rows[-last:]
    return float((losses[-last:] * weights).sum() / max(float(weights.sum()), 1.0))


def _clip(deltas: State, works: Sequence[Work]) -> None:
    bounds = np.array([np.inf if work.clip is None else work.clip for work in works])
    if np.isinf(bounds).all():
        return
    floats = [stack for stack in deltas.values() if stack.dtype.kind == "f"]
    squares = sum(
        np.square(stack.reshape(len(works), -1), dtype=np.float64).sum(axis=1) for stack in floats
    )
    norms = np.sqrt(squares)
    factors = np.where(norms > bounds, bounds / np.maximum(norms, np.finfo(float).tiny), 1.0)
    for stack in floats:
        stack *= factors.reshape(-1, *[1] * (stack.ndim - 1)).astype(stack.dtype)


def _refuse(task: Task, client: int) -> None:
    rate = task.learning_rate
    way = "" if rate is None else f", for example to {rate / 10:g}"
    at = "" if rate is None else f" at learning rate {rate:g}"
    raise InvalidInputError(
        f"Training of client {client} diverged{at}: its loss or weights are no longer numbers; "
        f"lower the learning rate{way}, or look for values that are not numbers in its rows.",
        field="learning_rate",
    )
