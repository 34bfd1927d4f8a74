"""Filters one after the other, with a record of what each did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...exceptions import InvalidInputError, UpdateRejectedError
from ...schemas.filters import (
    Filter,
    FilterNote,
    FilterStep,
    GaussianNoise,
    GradientClip,
    NormValidation,
    Quantization,
    Sparsification,
    parse_filters,
)
from ..encodings import Compact, size_bytes
from .clip import clip, l2_norm
from .feedback import ErrorFeedback
from .kinds import Part, Taken, take
from .noise import NoiseSource, with_noise
from .notes import order_notes
from .quantization import quantise
from .topk import sparsify

__all__ = ["FilteredDelta", "apply_filters", "run_filters"]


@dataclass(frozen=True, eq=False)
class FilteredDelta:
    """An update after its filters.

    Attributes:
        parts: name -> what is left of the array, for ``encodings.encode``.
        steps: one line a filter, in order.
        notes: what their order means.
        feedback: what to go on with once the update is taken; None where none was given.
    """

    parts: dict[str, Part]
    steps: tuple[FilterStep, ...]
    notes: tuple[FilterNote, ...]
    feedback: ErrorFeedback | None
    _taken: Taken

    def delta(self) -> dict[str, Any]:
        """The update in the caller's own kind: new arrays, or tensors on their devices."""
        return self._taken.give_back(self.parts)


def apply_filters(
    delta: Mapping[str, Any],
    filters: Iterable[Filter | Mapping[str, Any]],
    *,
    rng: NoiseSource | None = None,
) -> dict[str, Any]:
    """The update after ``filters``, which are applied in the order of the list.

    Args:
        delta: name -> numpy array or torch tensor, one kind; it is not changed. Filters are for
            floats; arrays of integers and booleans (counters) come out as they went in.
        filters: models, or mappings such as ``{"type": "gradient_clip", "max_norm": 1.0}``.
        rng: for tests: where noise comes from; by default the operating system's key.

    Returns:
        New arrays or tensors, with the names, types, shapes and devices of ``delta``.

    Raises:
        InvalidInputError: an unknown filter or key, a value out of range, or no such update.
        UpdateRejectedError: a value is not finite, or ``norm_validation`` refuses the update.
    """
    return run_filters(delta, filters, rng=rng).delta()


def run_filters(
    delta: Mapping[str, Any],
    filters: Iterable[Filter | Mapping[str, Any]],
    *,
    feedback: ErrorFeedback | None = None,
    rng: NoiseSource | None = None,
) -> FilteredDelta:
    """As ``apply_filters``, with the audit trail, in a form that can be sent small.

    ``norm_validation`` measures the update as it was before the first noise, wherever it stands
    after it: noise alone has a norm of ``sigma`` times the root of the number of values.

    Args:
        feedback: what former rounds left unsent. It is added before the first sparsification or
            quantization, so after clipping and noise: it is made of what noise had covered.

    Raises:
        InvalidInputError: as ``apply_filters``; or with ``feedback`` a clip or noise follows
            compression, which would bound or cover what former rounds left, too.
        UpdateRejectedError: as ``apply_filters``.
    """
    parsed = parse_filters(filters)
    taken = take(delta)
    first = _first_compression(parsed)
    if feedback is not None:
        _check_feedback(parsed[first:])
    run = _Run(taken.parts, taken.precision, rng)
    entered: dict[str, Part] | None = None
    for place, filter in enumerate(parsed):
        if place == first and feedback is not None:
            entered = feedback.add_to(run.parts)
            run.replace(entered)
        run.step(filter)
    if entered is not None:
        feedback = ErrorFeedback.after(entered, run.parts)
    notes = order_notes(parsed) + _integer_notes(taken.parts, parsed)
    parts = {name: _own(part) for name, part in run.parts.items()}
    return FilteredDelta(parts, tuple(run.steps), notes, feedback, taken)


class _Run:
    """An update on its way through the filters."""

    def __init__(self, parts: dict[str, Part], precision: float, rng: NoiseSource | None) -> None:
        self.steps: list[FilterStep] = []
        self._precision, self._rng = precision, rng
        self._before_noise: float | None = None
        self.replace(parts)

    def replace(self, parts: dict[str, Part]) -> None:
        """Go on with other arrays; refuses values that are not finite."""
        self.parts = parts
        self._norm = l2_norm(parts)

    def step(self, filter: Filter) -> None:
        """One filter, and its line."""
        parts, norm = self.parts, self._norm
        if isinstance(filter, NormValidation):
            self._validate(filter.max_norm)
        elif self._changed(filter):
            self.replace(self._apply(filter))
        self.steps.append(
            FilterStep(
                filter=filter,
                norm_before=norm,
                norm_after=self._norm,
                coordinates=sum(part.size for part in _floats(self.parts)),
                kept=sum(part.kept for part in _floats(self.parts)),
                bytes_before=sum(size_bytes(part) for part in parts.values()),
                bytes_after=sum(size_bytes(part) for part in self.parts.values()),
            )
        )

    def _changed(self, filter: Filter) -> bool:
        # The norm is known, so most updates pass a global clip without being looked at again.
        if isinstance(filter, GradientClip) and not filter.per_tensor:
            return self._norm > filter.max_norm
        return True

    def _apply(self, filter: Filter) -> dict[str, Part]:
        if isinstance(filter, GradientClip):
            return clip(
                self.parts,
                filter.max_norm,
                per_tensor=filter.per_tensor,
                precision=self._precision,
                norm=self._norm,
            )
        if isinstance(filter, GaussianNoise):
            if self._before_noise is None:
                self._before_noise = self._norm
            return with_noise(self.parts, filter.sigma, rng=self._rng)
        if isinstance(filter, Sparsification):
            return {name: sparsify(part, filter.top_k) for name, part in self.parts.items()}
        assert isinstance(filter, Quantization), "the union has no other filter"
        return {name: quantise(part, filter.bits) for name, part in self.parts.items()}

    def _validate(self, limit: float) -> None:
        noised = self._before_noise is not None
        norm = self._norm if self._before_noise is None else self._before_noise
        if norm > limit:
            raise UpdateRejectedError(
                f"The update's norm{' before noise' if noised else ''} is {norm:.6g}, over the "
                f"limit of {limit:g}; train with a lower learning rate, or clip it first.",
                field="norm_validation",
            )


def _floats(parts: Mapping[str, Part]) -> list[Compact]:
    return [part for part in parts.values() if isinstance(part, Compact)]


def _first_compression(filters: Sequence[Filter]) -> int:
    kinds = (Sparsification, Quantization)
    return next((i for i, filter in enumerate(filters) if isinstance(filter, kinds)), len(filters))


def _check_feedback(compression: Sequence[Filter]) -> None:
    for filter in compression:
        if isinstance(filter, GradientClip | GaussianNoise):
            raise InvalidInputError(
                f"With error feedback {filter.type} cannot follow sparsification or "
                "quantization; put it before them.",
                field="filters",
            )


def _integer_notes(parts: Mapping[str, Part], filters: Sequence[Filter]) -> tuple[FilterNote, ...]:
    names = [name for name, part in parts.items() if not isinstance(part, Compact)]
    if not names or not filters:
        return ()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        FilterNote(
            code="integers_unfiltered",
            text=f"Filters are for floats: {', '.join(names[:3])}{more} leave as they are; keep "
            "out of the update what should not leave.",
        ),
    )


def _own(part: Part) -> Part:
    """The part, which shares its memory with the caller's array no more."""
    if isinstance(part, np.ndarray):
        return part.copy()
    if isinstance(part.values, np.ndarray) and not part.values.flags.owndata:
        return Compact(part.shape, part.dtype, part.indices, part.values.copy())
    return part
