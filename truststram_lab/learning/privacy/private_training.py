"""What a site does in a round of DP-SGD: ``learning.training.train`` with every row protected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...exceptions import InsufficientResourcesError, InvalidInputError
from ...schemas.federation import LocalTraining
from ...schemas.privacy import RecordPlan
from ...schemas.registry import Architecture, DropoutLayer
from ..memory import free_memory, is_out_of_memory
from ..network import check_state
from ..training import (
    GradientTerms,
    Stopped,
    adder_of,
    check_rows,
    loss_of,
    refuse_diverged,
    sgd_step,
)
from ..weights import State
from .dpsgd import Tensors, private_gradient
from .noise import NoiseSource, SecureRandom

if TYPE_CHECKING:
    import torch

__all__ = ["train_privately"]


def train_privately(
    architecture: Architecture,
    state: Mapping[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    local: LocalTraining,
    plan: RecordPlan,
    device: str,
    should_stop: Callable[[], bool],
    on_step: Callable[[int, int], None] | None = None,
    *,
    terms: GradientTerms | None = None,
    sampling: NoiseSource | None = None,
    noise: NoiseSource | None = None,
) -> tuple[State, dict[str, float]]:
    """Train a copy of ``state`` with DP-SGD for one round of ``plan``; return it and metrics.

    Takes ``plan.steps_per_round`` steps, each on a secret Poisson sample of the rows; of
    ``local`` the learning rate, momentum, weight decay and type count, ``epochs`` and
    ``batch_size`` are in the plan already (``dpsgd.rates``).

    What a strategy adds to the gradient (``terms``) is added after the rows' gradients were clipped
    and noised, and spends nothing: FedProx pulls towards the round's start by the weights alone,
    which are private already, and SCAFFOLD's c - c_i is known before the round, because c_i is
    computed from private weights only (option II). Clipping the sum of both instead would
    let the correction eat up the rows' share, and would protect no better.
    Noble, Bellet and Dieuleveut 2022, "Differentially Private Federated Learning on Heterogeneous
    Data", algorithm 1 (DP-SCAFFOLD). https://arxiv.org/abs/2111.09278

    Args:
        architecture, state, x, y, device, should_stop, on_step: as in ``training.train``.
        terms: of the strategy; known without this site's rows, or from what was noised.
        plan: what the round may spend, see ``RecordPlan.use``.
        sampling: of batches and dropout; by default a new key that is kept nowhere.
        noise: by default a new key that is kept nowhere.

    Returns:
        Weights in the type of ``state``, and ``loss`` (mean over the rows sampled, in nats,
        outside epsilon) and ``samples`` (rows, outside epsilon).

    Raises:
        Stopped, InvalidInputError, InsufficientResourcesError: as ``training.train``. Noise of a
            step that was drawn counts as spent whether or not the round ends.
    """
    check_state(state, architecture)
    check_rows(architecture, x, y)
    if device == "mps" and local.dtype == "float64":
        raise InvalidInputError(
            "Apple's mps has no float64; choose dtype float32, or device cpu.", field="dtype"
        )
    draws = SecureRandom() if sampling is None else sampling
    source = SecureRandom() if noise is None else noise
    try:
        return _train(
            architecture,
            state,
            x,
            y,
            local,
            plan,
            device,
            should_stop,
            on_step,
            draws,
            source,
            terms,
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Here the error is gone, which held the frames that held the tensors.
    free_memory()
    raise InsufficientResourcesError(
        f"{device} has too little memory for the gradients of single rows; its memory is free "
        "again: choose device cpu, or a smaller network."
    )


def _train(
    architecture: Architecture,
    state: Mapping[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    local: LocalTraining,
    plan: RecordPlan,
    device: str,
    should_stop: Callable[[], bool],
    on_step: Callable[[int, int], None] | None,
    sampling: NoiseSource,
    noise: NoiseSource,
    terms: GradientTerms | None,
) -> tuple[State, dict[str, float]]:
    import torch

    dtype = torch.float64 if local.dtype == "float64" else torch.float32
    inputs = torch.tensor(x, dtype=dtype, device=device)
    targets = torch.tensor(y, device=device)
    weights = {
        name: torch.tensor(array, dtype=dtype, device=device) for name, array in state.items()
    }
    velocity = [torch.zeros_like(weight) for weight in weights.values()]
    add = adder_of(weights, terms)
    loss_sum, seen = 0.0, 0
    for done in range(plan.steps_per_round):
        if should_stop():
            raise Stopped
        # Masks belong to rows, not to places in a batch: one row less must change no other's.
        masks = _masks(architecture, len(x), sampling, dtype, device)
        gradient, losses = private_gradient(
            _row_loss(architecture),
            weights,
            [inputs, targets, *masks],
            plan,
            sampling=sampling,
            noise=noise,
        )
        gradients = [gradient[name] for name in weights]
        sgd_step(
            list(weights.values()), gradients if add is None else add(gradients), velocity, local
        )
        loss_sum += float(losses.sum())
        seen += len(losses)
        if on_step is not None:
            on_step(done + 1, plan.steps_per_round)
    trained = {
        name: weights[name].cpu().numpy().astype(array.dtype) for name, array in state.items()
    }
    finite = math.isfinite(loss_sum) and all(np.isfinite(a).all() for a in trained.values())
    refuse_diverged(bool(finite), local)
    return trained, {"loss": loss_sum / max(seen, 1), "samples": float(len(x))}


def _masks(
    architecture: Architecture, rows: int, rng: NoiseSource, dtype: torch.dtype, device: str
) -> list[torch.Tensor]:
    """What dropout multiplies with: for each dropout layer (rows, width)."""
    import torch

    masks: list[torch.Tensor] = []
    width = architecture.inputs
    for layer in architecture.layers:
        if isinstance(layer, DropoutLayer):
            kept = rng.random(rows * width).reshape(rows, width) >= layer.rate
            masks.append(torch.tensor(kept / (1 - layer.rate), dtype=dtype, device=device))
        else:
            width = layer.units
    return masks


def _row_loss(architecture: Architecture) -> Callable[..., torch.Tensor]:
    import torch

    def loss(
        weights: Tensors, x: torch.Tensor, y: torch.Tensor, *masks: torch.Tensor
    ) -> torch.Tensor:
        rest = iter(masks)
        hidden = x
        for place, layer in enumerate(architecture.layers):
            if isinstance(layer, DropoutLayer):
                hidden = hidden * next(rest)
                continue
            hidden = torch.nn.functional.linear(
                hidden, weights[f"layers.{place}.weight"], weights[f"layers.{place}.bias"]
            )
            if layer.activation != "identity":
                hidden = getattr(torch, layer.activation)(hidden)
        logits = hidden.unsqueeze(0)
        target = y.to(hidden.dtype) if len(hidden) == 1 else y.to(torch.int64)
        return loss_of(logits, target.unsqueeze(0))

    return loss
