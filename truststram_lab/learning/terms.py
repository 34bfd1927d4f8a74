"""Terms that a strategy adds to the gradient, inside a training function that knows none.

A training function is somebody's own loop with a torch optimizer in it. ``local_terms`` adds
FedProx's or Ditto's pull, and SCAFFOLD's correction, to the gradients right before each
optimizer step. For every optimizer that is the same as the term in the loss; it differs only
where the function changes gradients between ``backward`` and ``step``, as clipping does: then
the term is added to what was clipped. Torch is loaded on use.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..exceptions import InvalidInputError
from .weights import State

if TYPE_CHECKING:
    import torch

__all__ = ["LocalTerms", "local_terms"]


class LocalTerms:
    """What ``local_terms`` did: how many steps it reached, and how far they went."""

    def __init__(
        self,
        start: Mapping[str, np.ndarray],
        anchor: Mapping[str, np.ndarray],
        strength: float,
        correction: Mapping[str, np.ndarray],
        module: torch.nn.Module | None,
    ) -> None:
        self._start = {name: array for name, array in start.items() if array.dtype.kind == "f"}
        self._anchor, self._strength, self._correction = anchor, strength, correction
        self._names: dict[torch.Tensor, str] = {}
        if module is not None:
            self._names = {weight: name for name, weight in module.named_parameters()}
        self._terms: dict[torch.Tensor, tuple[torch.Tensor | None, torch.Tensor | None]] = {}
        self._rates: list[float] = []
        self._not_plain: str | None = None
        self._thread = threading.get_ident()

    @property
    def steps(self) -> int:
        """Optimizer steps that the terms were in."""
        return len(self._rates)

    @property
    def path(self) -> float:
        """The learning rates of all steps, summed: SCAFFOLD's K times the learning rate.

        Raises:
            InvalidInputError: a step was none of plain SGD with one learning rate, so that its
                length does not say what the gradient was.
        """
        if self._not_plain is not None:
            raise InvalidInputError(
                f"SCAFFOLD's control variate needs plain SGD with one learning rate, but the "
                f"training function steps with {self._not_plain}; use torch.optim.SGD without "
                "momentum, or choose fedprox.",
                field="train",
            )
        return math.fsum(self._rates)

    def before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """The hook: adds the terms to the gradients of ``optimizer``.

        Raises:
            InvalidInputError: the optimizer computes or scales gradients inside its step, or
                has a parameter that is none of the model's.
        """
        import torch

        # The hook is called for every optimizer of the process; others' training is not ours.
        if threading.get_ident() != self._thread:
            return
        _refuse_hidden_gradients(optimizer, args, kwargs)
        with torch.no_grad():
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    if weight.requires_grad:
                        self._add(weight)
        self._not_plain = self._not_plain or _not_plain(optimizer)
        self._rates.append(float(optimizer.param_groups[0]["lr"]))

    def _add(self, weight: torch.Tensor) -> None:
        if weight not in self._terms:
            self._terms[weight] = self._prepare(weight)
        anchor, correction = self._terms[weight]
        if weight.grad is None:
            # The loss does not depend on it, but the term does.
            weight.grad = weight.new_zeros(weight.shape)
        if weight.grad.is_sparse:
            raise InvalidInputError(
                "The model has sparse gradients, to which no term of the strategy can be added; "
                "build the embedding with sparse=False, or choose fedavg.",
                field="train",
            )
        if anchor is not None:
            weight.grad.add_(weight - anchor, alpha=self._strength)
        if correction is not None:
            weight.grad.add_(correction)

    def _prepare(self, weight: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        import torch

        name = self._names.get(weight) or self._recognise(weight)
        self._names[weight] = name
        if name not in self._start:
            raise InvalidInputError(
                f"The optimizer trains {name!r}, which is not in the round's model; train the "
                "model that the function was given.",
                field="train",
            )

        def like(array: np.ndarray) -> torch.Tensor:
            return torch.tensor(array, dtype=weight.dtype, device=weight.device)

        return (
            like(self._anchor[name]) if self._strength else None,
            like(self._correction[name]) if self._correction else None,
        )

    def _recognise(self, weight: torch.Tensor) -> str:
        """The name of a parameter that still has the value it was handed out with."""
        import torch

        taken = set(self._names.values())
        for name, array in self._start.items():
            if name in taken or array.shape != tuple(weight.shape):
                continue
            handed = torch.tensor(array, dtype=weight.dtype, device=weight.device)
            if torch.equal(handed, weight):
                return name
        raise InvalidInputError(
            f"The optimizer trains a parameter of shape {tuple(weight.shape)} that has none of "
            f"the round's values: {', '.join(self._start)}; load the given state before the first "
            "step, and train nothing else.",
            field="train",
        )


@contextmanager
def local_terms(
    start: Mapping[str, np.ndarray],
    *,
    pull: float = 0.0,
    anchor: Mapping[str, np.ndarray] | None = None,
    correction: Mapping[str, np.ndarray] | None = None,
    module: torch.nn.Module | None = None,
) -> Iterator[LocalTerms]:
    """Within it, every torch optimizer step of this thread has the strategy's terms in it.

    The gradient of each weight w grows by ``pull * (w - anchor) + correction``. A parameter
    is recognised at its first step by its value, which must be the one of ``start`` (equal
    arrays of one shape are told apart by their order); with ``module``, by its name.

    Args:
        start: the state that the training function is handed.
        pull: mu of FedProx, or lambda of Ditto; 0 or more, 0 adds no pull.
        anchor: what is pulled to; ``start`` if left out (FedProx). For Ditto, the global model.
        correction: SCAFFOLD's c - c_i, see ``strategies.scaffold.correction``.
        module: the module that is trained, where it is known.

    Yields:
        The count of steps and their learning rates, for SCAFFOLD's next control variate.

    Raises:
        InvalidInputError: no optimizer took a step, so the terms never came in; or a step
            hides its gradients, or trains something else than the model; or ``pull``,
            ``anchor`` or ``correction`` do not fit.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2.
    https://arxiv.org/abs/1812.06127
    Li et al. 2021, "Ditto", algorithm 1. https://arxiv.org/abs/2012.04221
    Karimireddy et al. 2020, "SCAFFOLD", algorithm 1, line 10. https://arxiv.org/abs/1910.06378
    """
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    if not (math.isfinite(pull) and pull >= 0):
        raise InvalidInputError(
            f"{pull:g} is no strength of a pull to the global model; take 0 or more, for example "
            "0.1.",
            field="pull",
        )
    _check_fit(start, anchor, "anchor")
    _check_fit(start, correction, "correction")
    terms = LocalTerms(start, anchor or start, pull, correction or {}, module)
    handle = register_optimizer_step_pre_hook(terms.before_step)
    try:
        yield terms
    finally:
        handle.remove()
    if not terms.steps:
        raise InvalidInputError(
            "The training function took no step with a torch optimizer on its own thread, so the "
            "strategy's term never came in; step with torch.optim there, or choose fedavg.",
            field="train",
        )


def _not_plain(optimizer: torch.optim.Optimizer) -> str | None:
    """What keeps the optimizer's step from being its rate times the gradient, if anything."""
    import torch

    kind, groups = type(optimizer).__name__, optimizer.param_groups
    if type(optimizer) is not torch.optim.SGD:
        return kind
    if any(group["momentum"] for group in groups):
        return f"{kind} with momentum"
    if len({float(group["lr"]) for group in groups}) > 1:
        return f"{kind} of several learning rates"
    return None


def _refuse_hidden_gradients(
    optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    kind = type(optimizer).__name__
    # args starts with the optimizer itself.
    closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
    if closure is not None:
        raise InvalidInputError(
            f"{kind} computes its gradients inside its step, where no term of the strategy can be "
            "added; call backward first and step without a closure, or choose fedavg.",
            field="train",
        )
    if getattr(optimizer, "grad_scale", None) is not None:
        raise InvalidInputError(
            f"{kind} scales its gradients inside its step, where no term of the strategy can be "
            "added; build it with fused=False, or choose fedavg.",
            field="train",
        )


def _check_fit(
    start: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray] | None, field: str
) -> None:
    if other is None:
        return
    weights: State = {name: array for name, array in start.items() if array.dtype.kind == "f"}
    for name, array in weights.items():
        if name not in other or other[name].shape != array.shape:
            found = other[name].shape if name in other else "none"
            raise InvalidInputError(
                f"The {field} has {found} for array {name!r} of shape {array.shape}; give it the "
                "arrays of the model.",
                field=field,
            )
