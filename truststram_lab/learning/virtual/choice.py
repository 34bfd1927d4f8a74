"""Which trainer trains the virtual clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ...exceptions import InvalidInputError, nearest
from .task import Client, Task, Trainer

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
    from .loop import LoopTrainer

    if backend not in _BACKENDS:
        raise InvalidInputError(
            f"{backend!r} is no backend; choose one of {', '.join(_BACKENDS)}.",
            field="backend",
            choices=nearest(backend, _BACKENDS) or list(_BACKENDS),
        )
    if not len(clients):
        raise InvalidInputError("There are no clients to train; give one or more.")
    place = best_device(device)
    return LoopTrainer(task, clients, place, "Clients train one after another.")
