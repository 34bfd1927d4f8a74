"""What the order of a list of filters means that the filters' names do not say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...schemas.filters import (
    Filter,
    FilterNote,
    GaussianNoise,
    GradientClip,
    NormValidation,
    Quantization,
    Sparsification,
)

__all__ = ["order_notes"]

_Rule = Callable[[Sequence[Filter]], str | None]


def order_notes(filters: Sequence[Filter]) -> tuple[FilterNote, ...]:
    """The notes on a list of filters: none for one whose order means what it seems to."""
    noises = [place for place, filter in enumerate(filters) if isinstance(filter, GaussianNoise)]
    if not noises:
        return ()
    before, after = filters[: noises[0]], filters[noises[-1] + 1 :]
    found = [(code, rule(before)) for code, rule in _BEFORE_NOISE.items()]
    found += [(code, rule(after)) for code, rule in _AFTER_NOISE.items()]
    return tuple(FilterNote(code=code, text=text) for code, text in found if text)


def _unclipped(before: Sequence[Filter]) -> str | None:
    if any(isinstance(filter, GradientClip) for filter in before):
        return None
    return (
        "Nothing bounds the update before the noise, so no epsilon can be stated; put "
        "gradient_clip before gaussian_noise."
    )


def _clip_per_tensor(before: Sequence[Filter]) -> str | None:
    clips = [filter for filter in before if isinstance(filter, GradientClip)]
    if not clips or not all(clip.per_tensor for clip in clips):
        return None
    return (
        "gradient_clip bounds every array by itself: n arrays together can have sqrt(n) times "
        "that norm; leave per_tensor out for a bound on the update."
    )


def _clip_after_noise(after: Sequence[Filter]) -> str | None:
    if not any(isinstance(filter, GradientClip) for filter in after):
        return None
    return (
        "gradient_clip after gaussian_noise scales the noise with the update and adds no "
        "privacy; put it before."
    )


def _validated_after_noise(after: Sequence[Filter]) -> str | None:
    if not any(isinstance(filter, NormValidation) for filter in after):
        return None
    return (
        "norm_validation after gaussian_noise measures the update as it was before the noise, "
        "whose own norm is sigma times the root of the number of values."
    )


def _sparse_before_noise(before: Sequence[Filter]) -> str | None:
    if not any(isinstance(filter, Sparsification) for filter in before):
        return None
    return (
        "gaussian_noise fills the coordinates that sparsification cleared, for noise on the kept "
        "ones alone would tell which they are, so nothing is saved; put sparsification after."
    )


def _coarse_before_noise(before: Sequence[Filter]) -> str | None:
    clipped = max(
        (place for place, filter in enumerate(before) if isinstance(filter, GradientClip)),
        default=-1,
    )
    if not any(isinstance(filter, Quantization) for filter in before[clipped + 1 :]):
        return None
    return (
        "quantization before gaussian_noise can carry the norm over its bound, and the noise "
        "takes the values off the levels; put quantization after."
    )


_BEFORE_NOISE: dict[str, _Rule] = {
    "noise_without_clip": _unclipped,
    "clip_per_tensor": _clip_per_tensor,
    "sparse_before_noise": _sparse_before_noise,
    "quantized_before_noise": _coarse_before_noise,
}
_AFTER_NOISE: dict[str, _Rule] = {
    "clip_after_noise": _clip_after_noise,
    "validation_before_noise": _validated_after_noise,
}
