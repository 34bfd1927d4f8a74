"""Torch modules: their outputs, DeepLIFT against many baselines, expected gradients.

torch is loaded by those who have a module already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .interfaces import Floats

__all__ = [
    "Chain",
    "deeplift",
    "expected_gradients",
    "gradients",
    "module_outputs",
    "read_chain",
    "squashed",
]

#: Cells of an array held at once.
_CHUNK_CELLS = 4_000_000
_SQUASHING = {"Sigmoid": "a sigmoid", "Softmax": "a softmax"}
#: Where |delta-in| is below this, the derivative in the middle loses fewer digits.
_TINY = 1e-5


def squashed(module: Any) -> str | None:
    """``a sigmoid`` or ``a softmax`` if a module's last layer is one."""
    last = module
    while True:
        inner = list(last.children())
        if not inner:
            return _SQUASHING.get(type(last).__name__)
        last = inner[-1]


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Without dropout, and with the training mode of every part as it was afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _home(module: Any) -> tuple[Any, Any]:
    """Device and float type of a module's parameters."""
    import torch

    for parameter in [*module.parameters(), *module.buffers()]:
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.get_default_dtype()


def _squash(outputs: Any) -> Any:
    import torch

    return torch.sigmoid(outputs) if outputs.shape[1] == 1 else torch.softmax(outputs, dim=1)


def _flat(outputs: Any) -> Any:
    return outputs[:, None] if outputs.ndim == 1 else outputs.flatten(1)


def module_outputs(module: Any, *, squash: bool) -> Callable[[Any], Floats]:
    """Rows -> a module's outputs, float64 (n, outputs); with a sigmoid or softmax on request."""

    def native(rows: Any) -> Floats:
        import torch

        device, kind = _home(module)
        numbers = torch.as_tensor(np.asarray(rows, dtype=np.float64))
        parts = []
        at_once = max(1, _CHUNK_CELLS // max(numbers.shape[1], 64))
        with _evaluating(module), torch.no_grad():
            for part in torch.split(numbers, at_once):
                found = _flat(module(part.to(device, kind)))
                parts.append((_squash(found) if squash else found).cpu().double())
        return np.asarray(torch.cat(parts))

    return native


class Chain:
    """A module as a sequence of affine maps and element-wise functions.

    Args:
        steps: ``("affine", weight (out, in), bias)`` or ``("function", callable, None)``.
    """

    def __init__(self, steps: list[tuple[str, Any, Any]]) -> None:
        self.steps = steps

    def __call__(self, x: Any) -> Any:
        """The outputs, for tests that a chain is what the module computes."""
        for kind, what, bias in self.steps:
            x = x @ what.T + bias if kind == "affine" else what(x)
        return x


def read_chain(module: Any) -> Chain | None:
    """The chain of an ``nn.Sequential`` of layers with a rule; None for anything else."""
    steps: list[tuple[str, Any, Any]] = []
    return Chain(steps) if _read(module, steps) else None


def _read(module: Any, steps: list[tuple[str, Any, Any]]) -> bool:
    import torch
    from torch import nn

    kind = type(module)
    if kind is nn.Sequential:
        return all(_read(part, steps) for part in module)
    if kind is nn.Linear:
        weight = module.weight.detach()
        bias = torch.zeros(len(weight)).to(weight) if module.bias is None else module.bias.detach()
        steps.append(("affine", weight, bias))
        return True
    if kind is nn.BatchNorm1d and module.running_mean is not None:
        scale = 1.0 / torch.sqrt(module.running_var + module.eps)
        if module.affine:
            scale = scale * module.weight.detach()
        shift = -module.running_mean * scale
        if module.affine:
            shift = shift + module.bias.detach()
        steps.append(("affine", torch.diag(scale), shift))
        return True
    if kind in (nn.Identity, nn.Dropout, nn.Flatten):
        return True
    element_wise = (
        nn.ReLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Softplus,
        nn.ReLU6, nn.Hardtanh, nn.SELU, nn.LogSigmoid,
    )  # fmt: skip
    if kind in element_wise:
        steps.append(("function", _pure(module), None))
        return True
    return False


def _pure(module: Any) -> Any:
    """The function of an activation, without writing into its input."""
    import copy

    found = copy.copy(module)
    if hasattr(found, "inplace"):
        found.inplace = False
    return found


def deeplift(
    chain: Chain, rows: Floats, background: Floats, readout: Floats, *, single: bool = False
) -> Floats:
    """DeepLIFT (Rescale) against every background row, averaged, in one pass.

    Activations of rows and baselines are computed once each; only the slopes between them, and
    what flows back through these, exist for pairs. Shrikumar et al. 2017, sections 3.2 and
    3.5; the mean over baselines as in Lundberg & Lee 2017, section 4.2.

    Args:
        readout: (own, outputs); explained are ``chain(x) @ readout``.
        single: float32, four times faster at half the digits; else float64.

    Returns:
        (n, inputs, outputs).
    """
    import torch

    device = next((what.device for kind, what, _ in chain.steps if kind == "affine"), "cpu")
    kind = torch.float32 if single or str(device).startswith("mps") else torch.float64
    steps = [
        (name, what.to(kind) if name == "affine" else what, None if bias is None else bias.to(kind))
        for name, what, bias in chain.steps
    ]
    x = torch.as_tensor(rows).to(device, kind)
    b = torch.as_tensor(background).to(device, kind)
    out = torch.as_tensor(readout).to(device, kind)
    widest = max([rows.shape[1], *(len(what) for name, what, _ in steps if name == "affine")])
    ahead_b = _forward(steps, b)
    at_once = max(1, _CHUNK_CELLS // (len(b) * widest))
    found = []
    with torch.no_grad():
        for part in torch.split(x, at_once):
            ahead = _forward(steps, part)
            found.append(
                torch.stack(
                    [
                        _back(steps, part, b, ahead, ahead_b, out[:, output])
                        for output in range(out.shape[1])
                    ],
                    dim=2,
                )
            )
    values: Floats = torch.cat(found).cpu().double().numpy()
    return values


def _forward(steps: list[tuple[str, Any, Any]], x: Any) -> list[tuple[Any, Any]]:
    """What goes into and comes out of each function."""
    import torch

    seen = []
    with torch.no_grad():
        for name, what, bias in steps:
            before = x
            x = torch.addmm(bias, x, what.T) if name == "affine" else what(x)
            if name == "function":
                seen.append((before, x))
    return seen


def _back(
    steps: list[tuple[str, Any, Any]],
    x: Any,
    b: Any,
    ahead: list[tuple[Any, Any]],
    ahead_b: list[tuple[Any, Any]],
    readout: Any,
) -> Any:
    """Mean over baselines of multipliers times differences, (rows, inputs)."""
    multipliers = readout.expand(len(x), len(b), -1)
    place = len(ahead)
    first_affine = steps[0][0] == "affine"
    for name, what, _ in reversed(steps[1:] if first_affine else steps):
        if name == "affine":
            multipliers = multipliers @ what
        else:
            place -= 1
            multipliers = multipliers * _slopes(what, *ahead[place], *ahead_b[place])
    if not first_affine:
        return (multipliers * (x[:, None] - b)).mean(dim=1)
    # The first map needs no pairs: mean_b[(m W)(x - b)] = (mean_b m) W x - mean_b[(m W) b],
    # and the last sum is a contraction of m with b before it meets W.
    weight = steps[0][1]
    mean = multipliers.mean(dim=1) @ weight
    crossed = multipliers.transpose(1, 2) @ b / len(b)  # (rows, units, inputs)
    return mean * x - (crossed * weight).sum(dim=1)


def _slopes(function: Any, z: Any, a: Any, z0: Any, a0: Any) -> Any:
    """The quotient of differences for all pairs; its limit where they vanish."""
    import torch
    from torch import nn

    change = z[:, None] - z0
    exact = isinstance(function, nn.ReLU | nn.LeakyReLU | nn.ReLU6 | nn.Hardtanh)
    small = change.abs() <= (0.0 if exact else _TINY)
    slopes = (a[:, None] - a0) / torch.where(small, torch.ones_like(change), change)
    if not small.any():
        return slopes
    middle = (0.5 * (z[:, None] + z0))[small].requires_grad_()
    with torch.enable_grad():
        (derivative,) = torch.autograd.grad(function(middle).sum(), middle)
    slopes[small] = derivative
    return slopes


def expected_gradients(
    module: Any,
    rows: Floats,
    background: Floats,
    readout: Floats,
    *,
    squash: bool,
    samples: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Gradients on the ways from baselines to a row, times the way, averaged.

    Where on the way is stratified: one uniform point in each of ``samples`` equal parts, and the
    baselines are dealt in turns. Erion et al. 2021, "Improving performance of deep learning
    models with axiomatic attribution priors and expected gradients", equation 3.
    https://arxiv.org/abs/1906.10670

    Returns:
        values and their standard errors, (n, inputs, outputs) each.
    """
    import torch

    device, kind = _home(module)
    n, width = rows.shape
    at_once = max(1, _CHUNK_CELLS // (samples * max(width, 64)))
    values = np.empty((n, width, readout.shape[1]))
    error = np.empty_like(values)
    out = torch.as_tensor(readout).to(device, kind)
    b = torch.as_tensor(background).to(device, kind)
    with _evaluating(module):
        for start in range(0, n, at_once):
            part = slice(start, min(start + at_once, n))
            x = torch.as_tensor(rows[part]).to(device, kind)
            drawn, where = _ways(len(x), samples, len(b), rng)
            way = x[:, None] - b[torch.as_tensor(drawn).to(device)]
            share = torch.as_tensor(1.0 - where).to(device, kind)[..., None]
            points = (x[:, None] - share * way).reshape(-1, width).requires_grad_()
            for output in range(out.shape[1]):
                with torch.enable_grad():
                    found = _flat(module(points))
                    found = _squash(found) if squash else found
                    (slope,) = torch.autograd.grad((found @ out[:, output]).sum(), points)
                each = slope.reshape(way.shape) * way
                values[part, :, output] = each.mean(dim=1).cpu().double().numpy()
                spread = each.std(dim=1).cpu().double().numpy() if samples > 1 else np.nan
                error[part, :, output] = spread / np.sqrt(samples)
    return values, error


def gradients(module: Any, points: Floats, readout: Floats) -> Floats:
    """Derivatives of a module's outputs, (n, inputs, outputs)."""
    import torch

    device, kind = _home(module)
    x = torch.as_tensor(points).to(device, kind).requires_grad_()
    out = torch.as_tensor(readout).to(device, kind)
    with _evaluating(module), torch.enable_grad():
        found = _flat(module(x)) @ out
        slopes = [
            torch.autograd.grad(found[:, output].sum(), x, retain_graph=True)[0]
            for output in range(out.shape[1])
        ]
    values: Floats = torch.stack(slopes, dim=2).cpu().double().numpy()
    return values


def _ways(
    rows: int, samples: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, Floats]:
    """Baselines and places on the way for each sample, (rows, samples) each."""
    decks = -(-samples // size)
    drawn = rng.random((rows, decks, size)).argsort(axis=2).reshape(rows, -1)[:, :samples]
    where = (np.arange(samples) + rng.random((rows, samples))) / samples
    return drawn, where
