"""What a site does in a round: minibatch SGD on its own rows. Torch is loaded on use.

Randomness comes from generators of its own, drawn on the CPU, so that a run does not
disturb (or depend on) anybody's global seed and draws the same batches on every device.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..exceptions import InvalidInputError
from ..schemas.federation import LocalTraining
from ..schemas.registry import Architecture, DenseLayer, DropoutLayer
from .memory import fitting_batch, is_out_of_memory, too_small
from .network import check_state, expected_shapes
from .weights import State

if TYPE_CHECKING:
    import torch

__all__ = [
    "GradientTerms",
    "Stopped",
    "architecture_outputs",
    "build_module",
    "check_rows",
    "initial_state",
    "loss_of",
    "refuse_diverged",
    "round_seed",
    "sgd_step",
    "steps_of",
    "train",
]


class Stopped(Exception):
    """Training was asked to stop; nothing of the interrupted round may be used."""


@dataclass(frozen=True, eq=False)
class GradientTerms:
    """What a strategy adds to the gradient of each weight w: pull * (w - anchor) + correction.

    Args:
        pull: mu of FedProx or lambda of Ditto, 0 or more.
        correction: SCAFFOLD's c - c_i by the names of the weights, or None.
        anchor: what is pulled to, by the names of the weights; None is the weights that training
            starts from (FedProx). For Ditto, the global model.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2.
    https://arxiv.org/abs/1812.06127
    Li et al. 2021, "Ditto", algorithm 1. https://arxiv.org/abs/2012.04221
    Karimireddy et al. 2020, "SCAFFOLD", algorithm 1, line 10. https://arxiv.org/abs/1910.06378
    """

    pull: float = 0.0
    correction: Mapping[str, np.ndarray] | None = None
    anchor: Mapping[str, np.ndarray] | None = None


def round_seed(seed: int, site_index: int, round_number: int) -> int:
    """The seed of one site in one round: different triples give unrelated streams.

    Args:
        seed: of the run, 0 <= seed < 2**63.
        site_index: the site's place in the plan, below 2**32.
        round_number: below 2**32.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(site_index, round_number))
    # Torch takes 64 bits; 63 keep the number positive in every signed integer.
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def initial_state(architecture: Architecture, seed: int, dtype: str = "float32") -> State:
    """Random weights to start from: uniform in +-1/sqrt(inputs of the layer).

    The draw is the one of torch's Linear: variance 1/(3 inputs), after LeCun et al. 1998,
    "Efficient BackProp", section 4.6. Drawn in float64, so both types start equal.

    Args:
        dtype: "float32" or "float64".
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0xA11,)))
    shapes = expected_shapes(architecture)
    state: State = {}
    for name, shape in shapes.items():
        inputs = shapes[name.replace(".bias", ".weight")][1]
        bound = 1.0 / math.sqrt(inputs)
        state[name] = rng.uniform(-bound, bound, shape).astype(dtype)
    return state


def build_module(architecture: Architecture) -> torch.nn.Module:
    """A torch module of the architecture; its ``state_dict`` has the names of a State.

    In training mode its dropout draws from torch's global generator, as any module's does.
    """
    from collections import OrderedDict

    from torch import nn

    activations: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
    }
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = architecture.inputs
    for place, layer in enumerate(architecture.layers):
        if isinstance(layer, DropoutLayer):
            layers[str(place)] = nn.Dropout(layer.rate)
            continue
        layers[str(place)] = nn.Linear(width, layer.units)
        if layer.activation != "identity":
            layers[f"{place} {layer.activation}"] = activations[layer.activation]()
        width = layer.units
    return nn.Sequential(OrderedDict(layers=nn.Sequential(layers)))


def train(
    architecture: Architecture,
    state: Mapping[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    local: LocalTraining,
    generator_seed: int,
    device: str,
    should_stop: Callable[[], bool],
    on_step: Callable[[int, int], None] | None = None,
    terms: GradientTerms | None = None,
) -> tuple[State, dict[str, float]]:
    """Train a copy of ``state`` on a site's rows and return it with its metrics.

    Every epoch goes through all rows once, in a new random order, in batches of
    ``local.batch_size`` (the last may be smaller). The same arguments give the same bits on
    the same device.

    Args:
        state: weights to start from; unchanged.
        x: encoded rows, float (n, inputs).
        y: class places, int (n,); with one output, 1 is the positive class and 0 the other
            (``preprocessing.target_codes`` sees to it).
        local: epochs, batch size, learning rate, momentum, weight decay, arithmetic type.
        generator_seed: of batch order and dropout, see ``round_seed``.
        device: torch device, see ``learning.device.best_device``.
        should_stop: asked before each optimizer step.
        on_step: told (steps done, steps in all) after each step.
        terms: what the strategy adds to each gradient, before momentum and weight decay.

    Returns:
        Weights in the type of ``state``, and ``loss`` (mean over the last epoch's rows, in
        nats, before each step) and ``samples`` (rows).

    Raises:
        Stopped: ``should_stop`` said so.
        InvalidInputError: there are no rows, shapes do not fit, or training diverged.
        InsufficientResourcesError: the memory is too small; it is freed again, and the sentence
            has the batch size that fits.
    """
    check_state(state, architecture)
    check_rows(architecture, x, y)
    if device == "mps" and local.dtype == "float64":
        raise InvalidInputError(
            "Apple's mps has no float64; choose dtype float32, or device cpu.", field="dtype"
        )
    try:
        return _train(
            architecture, state, x, y, local, generator_seed, device, should_stop, on_step, terms
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise

    # Here the error is gone, which held the frames that held the tensors.
    def step(rows: int) -> None:
        smaller = local.model_copy(update={"batch_size": rows})
        with contextlib.suppress(Stopped):
            _train(architecture, state, x, y, smaller, 0, device, lambda: False, _once, terms)

    tried = min(local.batch_size, len(x))
    raise too_small(device, tried, fitting_batch(step, tried, device))


def _once(done: int, steps: int) -> None:  # noqa: ARG001 - told both, as any listener
    raise Stopped


def _train(
    architecture: Architecture,
    state: Mapping[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    local: LocalTraining,
    generator_seed: int,
    device: str,
    should_stop: Callable[[], bool],
    on_step: Callable[[int, int], None] | None,
    terms: GradientTerms | None,
) -> tuple[State, dict[str, float]]:
    import torch

    dtype = torch.float64 if local.dtype == "float64" else torch.float32
    generator = torch.Generator().manual_seed(generator_seed)
    outputs = architecture_outputs(architecture)
    inputs = torch.tensor(x, dtype=dtype, device=device)
    targets = torch.tensor(y, dtype=dtype if outputs == 1 else torch.int64, device=device)
    weights = {
        name: torch.tensor(array, dtype=dtype, device=device, requires_grad=True)
        for name, array in state.items()
    }
    velocity = [torch.zeros_like(weight) for weight in weights.values()]
    add_terms = adder_of(weights, terms)
    done, steps = 0, steps_of(len(x), local)
    loss_sum = 0.0
    for _ in range(local.epochs):
        total = torch.zeros((), dtype=dtype if device == "mps" else torch.float64, device=device)
        for batch in _batches(len(x), local.batch_size, generator):
            if should_stop():
                raise Stopped
            place = batch.to(device)
            logits = _forward(architecture, weights, inputs[place], generator)
            loss = loss_of(logits, targets[place])
            gradients = list(torch.autograd.grad(loss, list(weights.values())))
            if add_terms is not None:
                gradients = add_terms(gradients)
            sgd_step(list(weights.values()), gradients, velocity, local)
            total += loss.detach() * len(batch)
            done += 1
            if on_step is not None:
                on_step(done, steps)
        # One look an epoch: reading a number makes an accelerator wait.
        loss_sum = float(total)
        refuse_diverged(math.isfinite(loss_sum), local)
    trained = {
        name: weights[name].detach().cpu().numpy().astype(array.dtype)
        for name, array in state.items()
    }
    refuse_diverged(all(np.isfinite(array).all() for array in trained.values()), local)
    return trained, {"loss": loss_sum / len(x), "samples": float(len(x))}


def steps_of(rows: int, local: LocalTraining) -> int:
    """The optimizer steps of a round over ``rows`` rows."""
    return local.epochs * math.ceil(rows / local.batch_size)


def adder_of(
    weights: Mapping[str, torch.Tensor], terms: GradientTerms | None
) -> Callable[[list[torch.Tensor]], list[torch.Tensor]] | None:
    """Adds the terms to gradients in the order of ``weights``; None where there are none."""
    if terms is None or not (terms.pull or terms.correction):
        return None
    import torch

    def like(given: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {
            name: torch.tensor(array, dtype=weights[name].dtype, device=weights[name].device)
            for name, array in given.items()
        }

    if terms.anchor is None:
        anchor = {name: weight.detach().clone() for name, weight in weights.items()}
    else:
        anchor = like(terms.anchor)
    correction = like(terms.correction or {})

    def add(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        # New tensors: autograd may hand out one that shares its memory.
        found = gradients
        with torch.no_grad():
            if terms.pull:
                found = [
                    torch.add(gradient, weight - anchor[name], alpha=terms.pull)
                    for (name, weight), gradient in zip(weights.items(), found, strict=True)
                ]
            if correction:
                found = [
                    gradient + correction[name]
                    for name, gradient in zip(weights, found, strict=True)
                ]
        return found

    return add


def architecture_outputs(architecture: Architecture) -> int:
    """How many logits the network has."""
    dense = [layer.units for layer in architecture.layers if isinstance(layer, DenseLayer)]
    return dense[-1] if dense else architecture.inputs


def check_rows(architecture: Architecture, x: np.ndarray, y: np.ndarray) -> None:
    """Refuse rows that the network cannot be trained on.

    Raises:
        InvalidInputError: shapes that do not fit, no rows, or a class that it does not know.
    """
    if x.ndim != 2 or x.shape[1] != architecture.inputs or y.shape != (len(x),):
        raise InvalidInputError(
            f"The rows have shape {x.shape} and the classes {y.shape}, but the network takes "
            f"(n, {architecture.inputs}) and (n,); encode the rows with TableEncoder."
        )
    if not len(x):
        raise InvalidInputError("There are no rows to train on; leave this site out.")
    classes = max(architecture_outputs(architecture), 2)
    if y.min() < 0 or y.max() >= classes:
        raise InvalidInputError(
            f"The classes go from {y.min()} to {y.max()}, but the network knows 0 to "
            f"{classes - 1}; change the units of its last layer.",
            field="architecture",
        )


def _batches(rows: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    import torch

    order = torch.randperm(rows, generator=generator)
    for start in range(0, rows, size):
        yield order[start : start + size]


def _forward(
    architecture: Architecture,
    weights: Mapping[str, torch.Tensor],
    x: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    import torch

    for place, layer in enumerate(architecture.layers):
        if isinstance(layer, DropoutLayer):
            # Inverted dropout: survivors grow, so that prediction needs no correction.
            kept = torch.rand(x.shape, generator=generator) >= layer.rate
            x = x * kept.to(x.device, x.dtype) / (1.0 - layer.rate)
            continue
        x = torch.nn.functional.linear(
            x, weights[f"layers.{place}.weight"], weights[f"layers.{place}.bias"]
        )
        if layer.activation != "identity":
            x = getattr(torch, layer.activation)(x)
    return x


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats: logits (n, outputs), targets (n,), floats for one output."""
    from torch.nn import functional

    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], targets)
    return functional.cross_entropy(logits, targets)


def sgd_step(
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    velocity: list[torch.Tensor],
    local: LocalTraining,
) -> None:
    """One step of SGD, as torch.optim.SGD defines it (whose import costs seconds more)."""
    import torch

    with torch.no_grad():
        for weight, gradient, speed in zip(weights, gradients, velocity, strict=True):
            if local.weight_decay:
                gradient = gradient + local.weight_decay * weight
            if local.momentum:
                gradient = speed.mul_(local.momentum).add_(gradient)
            weight.sub_(gradient, alpha=local.learning_rate)


def refuse_diverged(finite: bool, local: LocalTraining) -> None:
    """Raise InvalidInputError with a learning rate to try, unless all is ``finite``."""
    if not finite:
        raise InvalidInputError(
            f"Training diverged at learning rate {local.learning_rate:g}: its loss is no longer a "
            f"number; lower the learning rate, for example to {local.learning_rate / 10:g}.",
            field="learning_rate",
        )
