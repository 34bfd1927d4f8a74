"""Record-level DP-SGD at a site: each row's gradient is clipped, their sum gets noise.

Abadi et al. 2016, "Deep Learning with Differential Privacy", algorithm 1, with Poisson-sampled
batches and a fixed denominator. https://arxiv.org/abs/1607.00133

What is drawn (which rows, which units drop out, the noise) is drawn in secret: a batch that the
platform could compute from the run's seed would amplify nothing. Torch is loaded on use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...exceptions import InvalidInputError
from ...schemas.privacy import RecordPlan
from ..memory import is_out_of_memory
from .mechanisms import cohort
from .noise import NoiseSource, SecureRandom, add_noise

if TYPE_CHECKING:
    import torch

__all__ = ["clipped_gradient_sum", "module_loss", "private_gradient", "rates", "refuse_shared_rows"]

#: name -> parameter, or its gradient, as torch tensors.
Tensors = Mapping[str, "torch.Tensor"]
#: Loss of one row: its parameters and the row's tensors without a batch dimension -> scalar.
RowLoss = Callable[..., "torch.Tensor"]

#: Per-row gradients held at a time.
_CHUNK_BYTES = 128 * 2**20


def rates(rows: int, batch_size: int, epochs: float) -> tuple[float, int]:
    """The sample rate and the steps of ``epochs`` passes in batches of ``batch_size``.

    ``batch_size`` is what a Poisson sample has on average: rate = batch_size / rows, and
    epochs / rate steps, rounded up. The number of rows is taken as public, as everywhere.

    Raises:
        InvalidInputError: a number is not positive, or the batch is larger than the rows.
    """
    for name, value in (("rows", rows), ("batch_size", batch_size), ("epochs", epochs)):
        if not value > 0:
            raise InvalidInputError(f"{name} is {value}; use a positive number.", field=name)
    if batch_size > rows:
        raise InvalidInputError(
            f"Batches of {batch_size} do not fit {rows} rows; use a batch size of {rows} or less.",
            field="batch_size",
        )
    return batch_size / rows, math.ceil(epochs * rows / batch_size)


def refuse_shared_rows(module: torch.nn.Module) -> None:
    """Refuse a module whose output for one row depends on the other rows of the batch.

    Raises:
        InvalidInputError: it has batch normalisation, or running statistics of its input.
    """
    from torch.nn.modules import batchnorm, instancenorm

    for name, part in module.named_modules():
        running = isinstance(part, instancenorm._InstanceNorm) and part.track_running_stats
        if isinstance(part, batchnorm._BatchNorm) or running:
            raise InvalidInputError(
                f"Layer {name or 'itself'!r} is a {type(part).__name__}, which mixes the rows of a "
                "batch, so that no row's gradient can be clipped alone; use GroupNorm instead.",
                field="model",
            )


def module_loss(
    module: torch.nn.Module, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> RowLoss:
    """The loss of one row under a module, as ``clipped_gradient_sum`` takes it.

    Args:
        module: any with batching rules; dropout draws a mask a row.
        loss: (outputs (1, ...), target (1, ...)) -> scalar, such as ``nn.CrossEntropyLoss()``.

    Raises:
        InvalidInputError: see ``refuse_shared_rows``.
    """
    from torch.func import functional_call

    refuse_shared_rows(module)

    def of_row(parameters: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        output = functional_call(module, dict(parameters), (x.unsqueeze(0),))
        return loss(output, y.unsqueeze(0))

    return of_row


def clipped_gradient_sum(
    loss: RowLoss,
    parameters: Tensors,
    examples: Sequence[torch.Tensor],
    clip: float,
    *,
    chunk: int | None = None,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The sum over rows of their gradients, each clipped to a global L2 norm of ``clip``.

    Args:
        loss: of one row: ``loss(parameters, *row)``, a scalar.
        parameters: those to train.
        examples: tensors with the rows in dimension 0, such as (x, y).
        clip: positive, in units of the gradient.
        chunk: rows whose gradients are held at a time; by default what fits 128 MiB.

    Returns:
        name -> sum in the parameter's shape and type, and the rows' losses (rows,), detached.
        No rows give zeros.

    Raises:
        InvalidInputError: a layer cannot be taken row by row, or a gradient is not finite.

    Abadi et al. 2016, algorithm 1, lines "compute gradient" and "clip gradient".
    """
    import torch
    from torch.func import grad_and_value, vmap

    rows = len(examples[0])
    sums = {name: torch.zeros_like(weight) for name, weight in parameters.items()}
    held = {name: weight.detach() for name, weight in parameters.items()}
    if chunk is None:
        one = sum(weight.numel() * weight.element_size() for weight in held.values())
        chunk = max(1, _CHUNK_BYTES // max(one, 1))
    of_rows = vmap(
        grad_and_value(loss), in_dims=(None, *[0] * len(examples)), randomness="different"
    )
    losses: list[torch.Tensor] = []
    for start in range(0, rows, chunk):
        part = [tensor[start : start + chunk] for tensor in examples]
        try:
            gradients, values = of_rows(held, *part)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise InvalidInputError(
                "The model's gradients cannot be taken row by row (torch has no batching rule for "
                "a layer of it, or it looks at its values); use layers such as Linear, Conv, "
                "GroupNorm and LayerNorm.",
                field="model",
            ) from error
        _add_clipped(sums, gradients, clip)
        losses.append(values.detach())
    some = next(iter(held.values()))
    return sums, torch.cat(losses) if losses else torch.zeros(0, dtype=some.dtype)


def _add_clipped(sums: dict[str, torch.Tensor], gradients: Tensors, clip: float) -> None:
    import torch

    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
    if not bool(torch.isfinite(norms).all()):
        raise InvalidInputError(
            "A row's gradient is no longer finite; lower the learning rate, or look for values "
            "that are not numbers in the rows.",
            field="learning_rate",
        )
    # A row without gradient stays as it is: 1 is smaller than clip / 0.
    factors = torch.clamp(clip / norms, max=1.0)
    for name, gradient in gradients.items():
        sums[name] += torch.tensordot(factors.to(gradient.dtype), gradient, dims=1)


def private_gradient(
    loss: RowLoss,
    parameters: Tensors,
    examples: Sequence[torch.Tensor],
    plan: RecordPlan,
    *,
    sampling: NoiseSource | None = None,
    noise: NoiseSource | None = None,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """One step's gradient: a secret sample, clipped, summed, noised, over the *planned* batch.

    Args:
        loss, parameters: as in ``clipped_gradient_sum``.
        examples: all rows of the site.
        plan: clip, noise multiplier, sample rate and batch size, the fixed denominator.
        sampling, noise: sources; by default each a new key that is kept nowhere.

    Returns:
        name -> gradient, to be used as any other (momentum and weight decay spend nothing), and
        the losses of the sampled rows, which no noise protects.

    Abadi et al. 2016, algorithm 1.
    """
    import torch

    rows = len(examples[0])
    places = torch.from_numpy(cohort(rows, plan.sample_rate, rng=sampling))
    chosen = [tensor[places.to(tensor.device)] for tensor in examples]
    sums, losses = clipped_gradient_sum(loss, parameters, chosen, plan.clip)
    source = SecureRandom() if noise is None else noise
    scale = plan.noise_multiplier * plan.clip
    gradient: dict[str, torch.Tensor] = {}
    for name, total in sums.items():
        noised = (
            add_noise(total.cpu().numpy().astype(np.float64), scale, rng=source) / plan.batch_size
        )
        # Rounded before it moves: an accelerator may not know float64.
        gradient[name] = torch.from_numpy(noised).to(total.dtype).to(total.device)
    return gradient, losses
