"""Strategies and filters in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..schemas.filters import (
    Filter,
    GaussianNoise,
    GradientClip,
    NormValidation,
    Sparsification,
)
from ..schemas.strategies import AnyStrategy
from .numbers import plural

__all__ = ["filter_words", "strategy_words"]

_NAMES = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fedavgm": "FedAvgM",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "scaffold": "SCAFFOLD",
    "median": "median",
    "trimmed_mean": "trimmed mean",
    "krum": "Krum",
    "multi_krum": "multi-Krum",
}


def strategy_words(strategy: AnyStrategy) -> str:
    """A strategy with its parameters: ``FedAdam (server learning rate 0.01, ...)``."""
    parts = [
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in strategy.model_dump(exclude={"name"}).items()
        if value is not None
    ]
    name = _NAMES[strategy.name]
    return f"{name} ({', '.join(parts)})" if parts else name


def filter_words(filters: Sequence[Filter]) -> str:
    """What is done to an update, in order: ``clip to norm 1, then keep the largest 10 %``."""
    return ", then ".join(_one(each) for each in filters) or "none"


def _one(each: Filter) -> str:
    if isinstance(each, GradientClip):
        return f"clip {'every array ' * each.per_tensor}to norm {each.max_norm:g}"
    if isinstance(each, GaussianNoise):
        return f"add noise of standard deviation {each.sigma:g}"
    if isinstance(each, NormValidation):
        return f"refuse a norm over {each.max_norm:g}"
    if isinstance(each, Sparsification):
        return f"keep the largest {100 * each.top_k:g} %"
    return f"round to {plural(each.bits, 'bit')}"
