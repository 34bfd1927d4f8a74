"""The loss of each row, whether a task's loss gives that or the mean of it."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.func import vmap
from torch.nn import functional

from .task import Loss

__all__ = ["batched_losses", "row_losses"]

#: Means over rows that torch gives row by row too, at less cost than vmap.
_MODULES = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MSELoss, nn.L1Loss)
_FUNCTIONS: dict[Loss, nn.Module] = {
    functional.cross_entropy: nn.CrossEntropyLoss(),
    functional.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss(),
    functional.mse_loss: nn.MSELoss(),
    functional.l1_loss: nn.L1Loss(),
}


def row_losses(loss: Loss, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | None:
    """The loss of each row (n,), or None where the loss gives their mean alone."""
    found = loss(outputs, targets)
    return found if found.ndim == 1 and len(found) == len(outputs) else None


def batched_losses(loss: Loss, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each row, (C, B), of outputs (C, B, ...) and targets (C, B, ...)."""
    flat, wanted = outputs.flatten(0, 1), targets.flatten(0, 1)
    found = _called(loss, flat, wanted)
    if found.ndim != 1 or len(found) != len(flat):
        # A mean: row by row it is the row's own loss.
        found = vmap(lambda row, target: loss(row.unsqueeze(0), target.unsqueeze(0)))(flat, wanted)
    return found.view(outputs.shape[:2])


def _called(loss: Loss, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss, row by row where torch's own can give that."""
    known = _FUNCTIONS.get(loss, loss)
    if type(known) not in _MODULES or getattr(known, "reduction", "") != "mean":
        return loss(outputs, targets)
    each = copy.copy(known)
    setattr(each, "reduction", "none")  # noqa: B010  (of four classes, not of Module)
    found: torch.Tensor = each(outputs, targets)
    return found.flatten(1).mean(dim=1) if found.ndim > 1 else found
