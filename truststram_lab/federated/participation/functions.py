"""Somebody's own training function, whichever of the two documented shapes it has.

    fn(state) -> (state, rows, metrics)                 state: a dict of torch tensors
    fit(parameters, config) -> (parameters, rows, metrics)      parameters: a list of arrays

It runs in this process, on its device; nothing of it is pickled or sent.
"""

from __future__ import annotations

import inspect
import math
import numbers
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning.memory import (
    fitting_batch,
    free_memory,
    is_out_of_memory,
    too_small,
)
from truststram_lab.learning.weights import State
from truststram_lab.schemas.participation import ConfigValue

from .forms import LIST, TENSORS, Form, read_like

__all__ = ["Evaluated", "Trained", "Training", "adapt", "call_evaluation", "style_of"]

Config = Mapping[str, ConfigValue]

_TRAINING = "the training function"
_EVALUATION = "the evaluation function"


@dataclass(frozen=True, eq=False)
class Trained:
    """What local training gives: weights of the round's model, rows trained on, metrics."""

    state: State = field(repr=False)
    samples: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Evaluated:
    """What local evaluation gives; ``metrics`` has the loss, too."""

    samples: int
    metrics: dict[str, float]


class Training(Protocol):
    """Local training on named arrays."""

    @property
    def module(self) -> Any:
        """The torch module that is trained, where it is known; else None."""

    def __call__(self, base: State, config: Config) -> Trained:
        """Train a copy of ``base``."""


def style_of(function: Callable[..., Any]) -> Literal["state", "fit"]:
    """Whether a function is ``fn(state)`` or ``fit(parameters, config)``, by its signature.

    Raises:
        InvalidInputError: it is neither.
    """
    if not callable(function):
        raise InvalidInputError(
            f"The training function is a {type(function).__name__}; pass a function "
            "train(state) or fit(parameters, config).",
            field="train",
        )
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # a builtin that does not tell
        return "state"
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    star = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if needed or len(required) > 2 or not (positional or star):
        raise InvalidInputError(
            f"The training function takes ({', '.join(p.name for p in parameters)}), but it is "
            "called as train(state) or fit(parameters, config); give the others defaults.",
            field="train",
        )
    if len(required) == 2 or (len(positional) > 1 and positional[1].name == "config"):
        return "fit"
    return "state"


def adapt(function: Callable[..., Any], form: Form | None = None) -> Training:
    """The function as local training on named arrays.

    Args:
        function: ``fn(state)`` or ``fit(parameters, config)``.
        form: the kind of weights to hand to it; by default the documented one.

    Raises:
        InvalidInputError: as ``style_of``.
    """
    if style_of(function) == "fit":
        return _Function(function, form or LIST, passes_config=True)
    return _Function(function, form or TENSORS, passes_config=False)


@dataclass(frozen=True, eq=False)
class _Function:
    function: Callable[..., Any]
    form: Form
    passes_config: bool

    @property
    def module(self) -> None:
        return None

    def __call__(self, base: State, config: Config) -> Trained:
        given = self.form.give(base)
        arguments = (given, dict(config)) if self.passes_config else (given,)
        returned = with_memory(lambda: self.function(*arguments), *self._trial(base, config))
        weights, samples, metrics = unpack(returned, _TRAINING, "weights, rows trained on, metrics")
        return Trained(
            read_like(weights, base, _TRAINING),
            read_samples(samples, _TRAINING, "rows trained on"),
            read_metrics(metrics, _TRAINING),
        )

    def _trial(self, base: State, config: Config) -> tuple[Callable[[int], Any] | None, Any]:
        """The function with another batch size, where it takes one, and the one it had."""
        if self.passes_config:
            return (
                lambda rows: self.function(self.form.give(base), {**config, "batch_size": rows}),
                config.get("batch_size"),
            )
        try:
            own = inspect.signature(self.function).parameters.get("batch_size")
        except (ValueError, TypeError):  # a builtin that does not tell
            own = None
        if own is None:
            return None, None
        return lambda rows: self.function(self.form.give(base), batch_size=rows), own.default


def call_evaluation(function: Callable[..., Any], base: State, config: Config) -> Evaluated:
    """``evaluate(parameters, config) -> (loss, rows, metrics)``, checked.

    Raises:
        UpdateRejectedError: it returned something else; one sentence says what.
    """
    returned = with_memory(lambda: function(LIST.give(base), dict(config)), None, None)
    loss, samples, metrics = unpack(returned, _EVALUATION, "loss, rows evaluated on, metrics")
    found = read_metrics({"loss": loss}, _EVALUATION)
    rows = read_samples(samples, _EVALUATION, "rows evaluated on")
    return Evaluated(rows, {**found, **read_metrics(metrics, _EVALUATION)})


def unpack(returned: Any, who: str, expected: str) -> tuple[Any, Any, Any]:
    """The three values of a returned tuple.

    Raises:
        UpdateRejectedError: it is no tuple of three.
    """
    way_out = (
        f"end it with: return {expected.replace(' trained on', '').replace(' evaluated on', '')}"
    )
    if not isinstance(returned, tuple):
        shown = "nothing" if returned is None else f"a {type(returned).__name__}"
        raise UpdateRejectedError(
            f"{who.capitalize()} returned {shown}, expected the tuple ({expected}); {way_out}."
        )
    if len(returned) != 3:
        raise UpdateRejectedError(
            f"{who.capitalize()} returned a tuple of {len(returned)}, expected 3 values "
            f"({expected}); {way_out}."
        )
    return returned[0], returned[1], returned[2]


def read_samples(value: Any, who: str, what: str) -> int:
    """A positive whole number.

    Raises:
        UpdateRejectedError: it is not.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or int(value) < 1:
        near = ""
        if isinstance(value, numbers.Real) and math.isfinite(value) and float(value) >= 1:
            near = f", for example {round(float(value))}"
        shown = repr(value) if isinstance(value, numbers.Number) else f"a {type(value).__name__}"
        raise UpdateRejectedError(
            f"{who.capitalize()} returned {shown:.60} as the number of {what}; return a whole "
            f"number of at least 1{near}.",
            field="sample_count",
        )
    return int(value)


def read_metrics(value: Any, who: str) -> dict[str, float]:
    """Metrics as finite floats; None is none.

    Raises:
        UpdateRejectedError: no mapping, a name that is no text, or a value that is no number.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UpdateRejectedError(
            f"{who.capitalize()} returned a {type(value).__name__} as metrics; return a dict such "
            "as {'loss': 0.3}, or {}.",
            field="metrics",
        )
    return {_text(name, who): _number(name, found, who) for name, found in value.items()}


def _text(name: Any, who: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= 100:
        raise UpdateRejectedError(
            f"{who.capitalize()} returned a metric named {name!r:.60}; name it by 1 to 100 "
            "characters.",
            field="metrics",
        )
    return name


def _number(name: str, value: Any, who: str) -> float:
    torch = sys.modules.get("torch")
    plain = value
    single = isinstance(value, np.ndarray) and value.size == 1
    if single or (torch is not None and isinstance(value, torch.Tensor) and value.numel() == 1):
        plain = value.item()
    good = isinstance(plain, numbers.Real | np.bool_)
    if not good or not math.isfinite(float(plain)) or abs(float(plain)) >= 2.0**1023:
        shown = repr(plain) if good else f"a {type(value).__name__}"
        raise UpdateRejectedError(
            f"{who.capitalize()} returned {shown:.60} as metric {name!r}; return a finite number, "
            "or leave it out.",
            field="metrics",
        )
    return float(plain)


def with_memory(work: Callable[[], Any], trial: Callable[[int], Any] | None, tried: Any) -> Any:
    """Do ``work``; where the memory is too small, free it and say what to change.

    Args:
        trial: does the same with so many rows a batch; None where only the function knows how
            many it takes.
        tried: how many they were.

    Raises:
        InsufficientResourcesError: the memory was too small; it is free again.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Here the error is gone, which held the frames that held the tensors.
    free_memory()
    torch = sys.modules.get("torch")
    device = "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
    if trial is None or torch is None or not isinstance(tried, int) or tried < 1:
        raise too_small(device, None, None)
    raise too_small(device, tried, fitting_batch(_to_first_step(trial), tried, device))


def _to_first_step(trial: Callable[[int], Any]) -> Callable[[int], None]:
    """A trial that ends with its first optimizer step: no second one needs more memory."""

    def step(rows: int) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        def enough(*_: Any) -> None:
            raise _EnoughError

        handle = register_optimizer_step_post_hook(enough)
        try:
            trial(rows)
        except _EnoughError:
            pass
        finally:
            handle.remove()

    return step


class _EnoughError(BaseException):
    """The first step is done. No ``Exception``: a training function may catch those."""
