"""DP-SGD of many clients at once: every sampled row has weights of its own to take a gradient of.

The same draws, the same arithmetic as ``privacy.dpsgd``, whose paper it follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ...exceptions import InvalidInputError
from ..privacy.dpsgd import refuse_shared_rows
from ..privacy.mechanisms import cohort
from ..privacy.noise import SecureRandom, add_noise
from .loop import row_masks
from .losses import batched_losses
from .program import Program
from .stack import Rows
from .task import Task, Work

__all__ = ["PrivateGroup"]

#: Per-row gradients held at a time.
_BYTES = 64 * 2**20


class PrivateGroup:
    """The sources of a group's works, kept for the round."""

    def __init__(
        self,
        task: Task,
        module: torch.nn.Module,
        program: Program,
        dropouts: Sequence[tuple[tuple[int, ...], float]],
        trained: Sequence[str],
        works: Sequence[Work],
    ) -> None:
        refuse_shared_rows(module)
        self._task = task
        self._program = program
        self._dropouts = dropouts
        self._names = trained
        self._plans = [work.private for work in works if work.private is not None]
        self._sampling = [work.sampling or SecureRandom() for work in works]
        self._noise = [work.noise or SecureRandom() for work in works]

    def gradients(
        self, weights: Mapping[str, torch.Tensor], rows: Rows, active: int
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Noised gradients (C, ...) of a step, mean losses and sizes (C,) of the samples."""
        owners, places, masks = self._sample(rows, active)
        counts = torch.bincount(owners, minlength=active)
        sums = {name: torch.zeros_like(weights[name][:active]) for name in self._names}
        losses = torch.zeros(active, dtype=getattr(torch, self._task.dtype), device=rows.x.device)
        one = sum(weights[name][0].numel() * weights[name].element_size() for name in self._names)
        size = max(1, _BYTES // max(one, 1))
        for first in range(0, len(owners), size):
            part = slice(first, first + size)
            self._add(
                weights, rows, owners[part], places[part], [m[part] for m in masks], sums, losses
            )
        return self._noised(sums), losses / counts.clamp(min=1).to(losses.device), counts

    def _noised(self, sums: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        noised: dict[str, list[np.ndarray]] = {name: [] for name in sums}
        active = len(next(iter(sums.values())))
        # Drawn client by client and weight by weight, as each client alone would draw it.
        for place, plan in enumerate(self._plans[:active]):
            for name, stack in sums.items():
                exact = stack[place].cpu().numpy().astype(np.float64)
                scale = plan.noise_multiplier * plan.clip
                total = add_noise(exact, scale, rng=self._noise[place])
                noised[name].append(total / plan.batch_size)
        # Rounded before it moves: an accelerator may not know float64.
        return [
            torch.from_numpy(np.stack(noised[name])).to(total.dtype).to(total.device)
            for name, total in sums.items()
        ]

    def _sample(
        self, rows: Rows, active: int
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        owners, places = [], []
        masks: list[list[torch.Tensor]] = [[] for _ in self._dropouts]
        for place in range(active):
            plan = self._plans[place]
            size = rows.sizes[place]
            kept = row_masks(
                self._dropouts, size, self._sampling[place], rows.x.device, self._task.dtype
            )
            chosen = torch.from_numpy(cohort(size, plan.sample_rate, rng=self._sampling[place]))
            owners.append(torch.full_like(chosen, place))
            places.append(chosen + int(rows.first[place]))
            for of_layer, mask in zip(masks, kept, strict=True):
                of_layer.append(mask[chosen.to(mask.device)])
        return torch.cat(owners), torch.cat(places), [torch.cat(parts) for parts in masks]

    def _add(
        self,
        weights: Mapping[str, torch.Tensor],
        rows: Rows,
        owners: torch.Tensor,
        places: torch.Tensor,
        masks: Sequence[torch.Tensor],
        sums: dict[str, torch.Tensor],
        losses: torch.Tensor,
    ) -> None:
        device = rows.x.device
        owners, places = owners.to(device), places.to(device)
        own = {name: value[owners] for name, value in weights.items()}
        wanted = [own[name].requires_grad_() for name in self._names]
        rest = iter(masks)
        outputs = self._program(
            own, rows.x[places].unsqueeze(1), lambda _shape, _rate: next(rest).unsqueeze(1)
        )
        each = batched_losses(self._task.loss, outputs, rows.y[places].unsqueeze(1))[:, 0]
        gradients = torch.autograd.grad(
            each.sum(), wanted, allow_unused=True, materialize_grads=True
        )
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        if not bool(torch.isfinite(norms).all()):
            raise InvalidInputError(
                "A row's gradient is no longer finite; lower the learning rate, or look for "
                "values that are not numbers in the rows.",
                field="learning_rate",
            )
        bounds = torch.tensor([plan.clip for plan in self._plans], dtype=norms.dtype).to(device)
        factors = torch.clamp(bounds[owners] / norms, max=1.0)
        # A product, not scattered additions: those have no fixed order on an accelerator.
        active = len(losses)
        mine = owners == torch.arange(active, device=device).unsqueeze(1)
        share = mine * factors
        for name, gradient in zip(self._names, gradients, strict=True):
            total = share.to(gradient.dtype) @ gradient.flatten(1)
            sums[name] += total.view(sums[name].shape)
        losses += mine.to(losses.dtype) @ each.detach().to(losses.dtype)
