"""Dropout of a network's own; this module loads torch."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Dropout"]


class Dropout(nn.Module):
    """Dropout whose masks come from the model's own generator, not from the process's."""

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.rate = rate
        self._own = generator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.rate:
            return x
        kept = torch.rand(x.shape, generator=self._own) >= self.rate
        return x * kept.to(x.device, x.dtype) / (1.0 - self.rate)
