"""From what training changed to the bytes that leave: filters, residuals, the record of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from truststram_lab.learning import encodings, weights
from truststram_lab.learning.filters import ErrorFeedback, run_filters
from truststram_lab.learning.weights import State
from truststram_lab.schemas.filters import (
    Filter,
    GaussianNoise,
    GradientClip,
    Quantization,
    Sparsification,
)
from truststram_lab.schemas.privacy import LocalPlan

from .ports import TellState
from .terms import Terms

__all__ = ["all_filters", "leave"]

_LOSSY = (Sparsification, Quantization)
_COVERING = (GradientClip, GaussianNoise)


def all_filters(terms: Terms, own: Sequence[Filter]) -> list[Filter]:
    """What is done to an update, in order: the site's own, local privacy, the federation's."""
    found: list[Filter] = list(own)
    if isinstance(terms.privacy, LocalPlan):
        found.append(GradientClip(max_norm=terms.privacy.clip))
        if terms.privacy.sigma:
            found.append(GaussianNoise(sigma=terms.privacy.sigma))
    return [*found, *terms.filters]


def leave(
    update: State,
    samples: int,
    metrics: Mapping[str, float],
    filters: Sequence[Filter],
    residual: State | None,
    tell: TellState,
) -> tuple[bytes, State | None]:
    """The update's file, and the residual that goes with it (None where nothing is kept back).

    Args:
        residual: what former rounds left unsent; None for none.

    Raises:
        UpdateRejectedError: a filter refuses the update, or a value is not finite.
    """
    tell("update_preparing")
    metadata = {"sample_count": str(samples), "metrics": json.dumps(dict(metrics))}
    if not filters:
        return weights.encode(update, metadata), None
    if any(isinstance(found, GradientClip) for found in filters):
        tell("clipping")
    if any(isinstance(found, GaussianNoise) for found in filters):
        tell("noising")
    feedback = ErrorFeedback(residual or {}) if _keeps_residual(filters) else None
    filtered = run_filters(update, filters, feedback=feedback)
    metadata["filters"] = _audit([step.model_dump() for step in filtered.steps])
    body = encodings.encode(filtered.parts, metadata).body
    return body, None if filtered.feedback is None else filtered.feedback.residual


def _keeps_residual(filters: Sequence[Filter]) -> bool:
    """Whether something is held back, and nothing clips or covers it after that."""
    lossy = [place for place, found in enumerate(filters) if isinstance(found, _LOSSY)]
    return bool(lossy) and not any(isinstance(found, _COVERING) for found in filters[lossy[0] :])


def _audit(lines: list[dict[str, Any]]) -> str:
    return json.dumps(lines, separators=(",", ":"))
