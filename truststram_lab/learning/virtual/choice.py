"""Which trainer trains the virtual clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ...exceptions import InvalidInputError, nearest
from .task import Client, Task, Trainer

if TYPE_CHECKING:
    from .loop import LoopTrainer
    from .vectorized import VectorizedTrainer

__all__ = ["choose"]

Backend = Literal["auto", "vectorized", "loop"]
_BACKENDS = ("auto", "vectorized", "loop")


def choose(
    task: Task,
    clients: Sequence[Client],
    backend: Backend = "auto",
    chunk: int | None = None,
    device: str | None = None,
) -> Trainer:
    """The trainer of ``clients``.

    Args:
        clients: all there are; one is read when its work is due.
        backend: "auto" trains all clients of a chunk at once where the module allows it and a
            short measurement finds it no slower than one after another. Which it is may change
            with the machine, and with it the last bits of the results: to repeat a run, give
            the ``backend`` that the first one had.
        chunk: clients trained at once; by default as many as the configured memory holds.
        device: by default the first there is of cuda, mps and cpu.

    Raises:
        InvalidInputError: no clients, an unknown backend or device, or "vectorized" of a module
            that cannot be; the message says why.
    """
    from ..device import best_device
    from .probe import chunk_of, faster, obstacle

    if backend not in _BACKENDS:
        raise InvalidInputError(
            f"{backend!r} is no backend; choose one of {', '.join(_BACKENDS)}.",
            field="backend",
            choices=nearest(backend, _BACKENDS) or list(_BACKENDS),
        )
    if not len(clients):
        raise InvalidInputError("There are no clients to train; give one or more.")
    if chunk is not None and chunk < 1:
        raise InvalidInputError(f"A chunk of {chunk} clients trains nobody; use 1 or more.")
    place = best_device(device)
    if backend == "loop":
        return _loop(task, clients, place, "that was asked for")
    why_not = obstacle(task, clients, place)
    if why_not is not None:
        if backend == "vectorized":
            raise InvalidInputError(
                f"These clients cannot train at once: {why_not}; take backend loop or auto.",
                field="backend",
            )
        return _loop(task, clients, place, why_not)
    size = chunk_of(task, clients, place) if chunk is None else chunk
    together = _vectorized(task, clients, place, size)
    if backend == "vectorized":
        return together
    alone = _loop(task, clients, place, "")
    ratio = faster(together, alone)
    if ratio < 1.0:
        return _loop(
            task,
            clients,
            place,
            f"in a short trial all at once took {1 / ratio:.1f} times as long",
        )
    together.why = (
        f"Up to {size} clients train at once: in a short trial {ratio:.1f} times as fast as one "
        "after another."
    )
    return together


def _loop(task: Task, clients: Sequence[Client], device: str, reason: str) -> LoopTrainer:
    from .loop import LoopTrainer

    return LoopTrainer(task, clients, device, f"Clients train one after another: {reason}.")


def _vectorized(
    task: Task, clients: Sequence[Client], device: str, chunk: int
) -> VectorizedTrainer:
    from .vectorized import VectorizedTrainer

    why = f"Training at once was asked for: up to {chunk} clients."
    return VectorizedTrainer(task, clients, device, why, chunk)
