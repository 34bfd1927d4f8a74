"""Whether clients of a task can train at once, how many, and whether that is faster."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ...exceptions import InvalidInputError
from .draws import NoRule
from .loop import LoopTrainer, drawn_dropouts
from .losses import row_losses
from .task import Adam, Client, Sgd, Task, Work, rows_of
from .vectorized import VectorizedTrainer

__all__ = ["chunk_of", "faster", "obstacle"]

#: What the weights, gradients and moments of a chunk may take, in bytes: a constant of the
#: device's kind, never what is free now, so that no result depends on the machine's mood. On a
#: processor it is small because more than a cache gains nothing.
CHUNK_BYTES = {"cpu": 64 * 2**20, "mps": 2**30, "cuda": 8 * 2**30}
_MOST = {"cpu": 512, "mps": 2048, "cuda": 8192}
#: Clients and steps of the trials.
_TRIAL_CLIENTS, _TRIAL_STEPS = 32, 2


def chunk_of(task: Task, clients: Sequence[Client], device: str) -> int:
    """Clients trained at once by default."""
    state = task.new_module().state_dict()
    weights = sum(value.numel() * value.element_size() for value in state.values())
    x = rows_of(clients[0].x[:1], task.dtype, "cpu")
    rows = x.numel() * x.element_size() * task.batch_size
    # Weights, gradients, two moments, anchor and correction; inputs and what layers keep of them.
    one = 6 * weights + 8 * rows
    return int(min(max(CHUNK_BYTES[device] // max(one, 1), 1), _MOST[device]))


def obstacle(task: Task, clients: Sequence[Client], device: str) -> str | None:
    """Why the clients cannot train at once: half a sentence, or None where they can.

    Raises:
        InvalidInputError: the module does not take the rows at all.
    """
    if not isinstance(task.optimizer, Sgd | Adam):
        return "the optimizer is made by a function, which makes it for one client's weights"
    module = task.new_module(device)
    found = _of_layers(module)
    if found is not None:
        return found
    first = clients[0]
    # The last row twice: a client may have one alone.
    at = [*range(min(len(first), 64)), -1]
    x = rows_of(first.x[at], task.dtype, device)
    y = rows_of(first.y[at], task.dtype, device)
    outputs = _outputs(module, x)
    dropouts = drawn_dropouts(module, x)
    if dropouts is None:
        return "the module draws at random in other ways than by dropout"
    found = _of_values(module, x, outputs) or _of_loss(task, outputs, y)
    return found or _of_trial(task, clients, device)


def _of_layers(module: nn.Module) -> str | None:
    from torch.nn.modules import batchnorm, instancenorm

    for name, part in module.named_modules():
        kind = f"nn.{type(part).__name__}"
        if isinstance(part, nn.RNNBase | nn.RNNCellBase):
            return f"{kind} ({name or 'the module'}) has no batching rule"
        tracked = isinstance(part, instancenorm._InstanceNorm) and part.track_running_stats
        if isinstance(part, batchnorm._BatchNorm) or tracked:
            return f"{kind} ({name or 'the module'}) mixes the rows of a batch"
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if len(names) != len(list(module.parameters())):
        return "two layers of the module share a weight"
    return None


def _outputs(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    module.eval()
    try:
        with torch.no_grad():
            outputs = module(x)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise InvalidInputError(
            f"The module does not take rows of shape {tuple(x.shape[1:])} as {x.dtype}: "
            f"{_line(error)}; change the rows or its first layer."
        ) from error
    finally:
        module.train()
    if not isinstance(outputs, torch.Tensor) or len(outputs) != len(x):
        raise InvalidInputError(
            "The module does not give one output a row; return a tensor (rows, ...)."
        )
    return outputs


def _of_values(module: nn.Module, x: torch.Tensor, outputs: torch.Tensor) -> str | None:
    before = {name: value.clone() for name, value in module.named_buffers()}
    module.eval()
    with torch.no_grad():
        alone = module(x[:1])
    module.train()
    close = 1e-9 if outputs.dtype == torch.float64 else 1e-4
    if not torch.allclose(alone, outputs[:1], rtol=close, atol=close):
        return "the module mixes the rows of a batch"
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        module(x)
    if any(not torch.equal(value, before[name]) for name, value in module.named_buffers()):
        return "the module changes its buffers while it trains"
    return None


def _of_loss(task: Task, outputs: torch.Tensor, y: torch.Tensor) -> str | None:
    if row_losses(task.loss, outputs, y) is not None:
        return None
    whole = task.loss(outputs, y)
    if whole.ndim:
        return "the loss gives neither a mean nor one number a row"
    rows = torch.stack([task.loss(outputs[i : i + 1], y[i : i + 1]) for i in range(len(y))])
    if not torch.allclose(whole, rows.mean(), rtol=1e-4, atol=1e-6):
        return "the loss is no mean over the rows"
    return None


def _of_trial(task: Task, clients: Sequence[Client], device: str) -> str | None:
    few = [clients[place] for place in range(min(2, len(clients)))]
    works = [Work(place, seed=place + 1, steps=_TRIAL_STEPS) for place in range(len(few))]
    start = task.initial_state()
    alone = list(LoopTrainer(task, few, device, "").train(start, works))
    try:
        together = list(VectorizedTrainer(task, few, device, "", len(few)).train(start, works))
    # What torch raises for an operation without a batching rule; the reason is told to the user.
    except (NoRule, RuntimeError, ValueError, TypeError, IndexError) as error:
        return f"torch cannot train it for many clients at once ({_line(error)})"
    close = 1e-9 if task.dtype == "float64" else 1e-3
    for one, other in zip(alone, together, strict=True):
        for name, delta in one.delta.items():
            scale = max(float(np.abs(delta).max(initial=0.0)), 1e-6)
            if not np.allclose(delta, other.delta[name], rtol=0, atol=close * scale):
                return f"a trial at once gave other weights {name!r}"
    return None


def faster(together: VectorizedTrainer, alone: LoopTrainer) -> float:
    """How many times as fast the clients of a trial train at once as one after another."""
    count = min(len(together.clients), together.chunk, _TRIAL_CLIENTS)
    times = _seconds(alone, min(count, 4)), _seconds(together, count)
    return times[0] / times[1]


def _seconds(trainer: LoopTrainer | VectorizedTrainer, count: int) -> float:
    """Seconds a client: of a processor its own time, for others may be at work on it."""
    clock = time.process_time if trainer.device == "cpu" else time.perf_counter
    works = [Work(place, seed=1, steps=_TRIAL_STEPS) for place in range(count)]
    start = trainer.task.initial_state()
    taken = []
    for _ in range(4):
        begun = clock()
        for _trained in trainer.train(start, works):
            pass
        taken.append(clock() - begun)
    return min(taken) / count


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
